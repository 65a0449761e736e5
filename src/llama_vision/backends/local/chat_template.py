"""Llama 3.2 chat template.

After Meta's prompt format pages (https://www.llama.com/docs/model-cards-and-prompt-formats/) and the output of the
template published with the 11B. Special tokens are kept apart from text all the way to the tokenizer, so `<|eot_id|>` in
a user's text is ten characters and not the end of the turn.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, Tool


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A special token, which no text can spell."""

    token: str


PromptPart: TypeAlias = SpecialToken | str | Image
"""A part of a rendered prompt; an `Image` stands for its `<|image|>` token."""

_BEGIN = SpecialToken("<|begin_of_text|>")
_END_OF_TURN = SpecialToken("<|eot_id|>")
IMAGE_TOKEN = SpecialToken("<|image|>")

# The format requires a date. A fixed one keeps prompts reproducible.
_DATE_HEADER = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
_TOOL_INSTRUCTIONS = (
    "Given the following functions, please respond with a JSON for a function call "
    "with its proper arguments that best answers the given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)


def apply_chat_template(request: ChatRequest) -> list[PromptPart]:
    """Render messages and tools, up to the header of the assistant's reply.

    Raises:
        UnsupportedInputError: A message part is not possible in its role.

    """
    system, turns = _split_system(request.messages)
    parts: list[PromptPart] = [_BEGIN]
    if not request.images():
        environment = "Environment: ipython\n" if request.tools else ""
        parts += _turn("system", environment + _DATE_HEADER + system)
    elif (
        system
    ):  # against the format; `adaptation.message_order` folds it into the user's turn before it comes here
        parts += _turn("system", system)
    instructions = (
        _TOOL_INSTRUCTIONS + "".join(_tool(tool) + "\n\n" for tool in request.tools) if request.tools else ""
    )
    for message in turns:
        parts += _message(message, instructions)
        instructions = "" if message.role == "user" else instructions
    if instructions:
        raise UnsupportedInputError("The local model needs a user message to offer tools with.")
    return [*parts, *_header("assistant")]


def _split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Join the leading system messages. Later ones stay turns of their own."""
    count = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    texts = [_system_text(message).strip() for message in messages[:count]]
    return "\n\n".join(filter(None, texts)), list(messages[count:])


def _system_text(message: Message) -> str:
    if other := next((part for part in message.parts if not isinstance(part, Text)), None):
        raise UnsupportedInputError(f"A system message can't hold a {type(other).__name__}.")
    return message.text


def _header(role: str) -> list[PromptPart]:
    return [SpecialToken("<|start_header_id|>"), role, SpecialToken("<|end_header_id|>"), "\n\n"]


def _turn(role: str, *content: PromptPart) -> list[PromptPart]:
    return _merge_text([*_header(role), *content, _END_OF_TURN])


def _merge_text(parts: Sequence[PromptPart]) -> list[PromptPart]:
    """Merge adjacent texts, because they are tokenized together."""
    merged: list[PromptPart] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return merged


def _message(message: Message, instructions: str) -> Iterator[PromptPart]:
    match message.role:
        case "user":
            yield from _user_turn(message, instructions)
        case "system":
            yield from _turn("system", _system_text(message))
        case "assistant":
            yield from _assistant_turns(message)
        case "tool":
            yield from _tool_turns(message)
        case _:
            assert_never(message.role)


def _user_turn(message: Message, instructions: str) -> list[PromptPart]:
    """Render a user message, with the tool instructions before its first text."""
    content: list[PromptPart] = []
    before = instructions + (f"{message.name}: " if message.name else "")
    for part in message.parts:
        match part:
            case Image():
                content.append(part)
            case Text():
                follows_text = bool(content) and isinstance(content[-1], str)
                content.append(before + ("\n" if follows_text else "") + part.text)
                before = ""
            case ToolCall() | ToolResult():
                raise UnsupportedInputError(f"A user message can't hold a {type(part).__name__}.")
            case _:
                assert_never(part)
    return _turn("user", *content, before)


def _assistant_turns(message: Message) -> Iterator[PromptPart]:
    """Render an assistant message. The format has one call a turn, so several calls become several turns."""
    calls: list[ToolCall] = []
    for part in message.parts:
        match part:
            case Text():
                pass
            case ToolCall():
                calls.append(part)
            case Image() | ToolResult():
                raise UnsupportedInputError(f"An assistant message can't hold a {type(part).__name__}.")
            case _:
                assert_never(part)
    if message.text or not calls:
        yield from _turn("assistant", message.text)
    for call in calls:
        arguments = call.arguments if call.arguments.strip() else "{}"
        yield from _turn("assistant", f'{{"name": {json.dumps(call.name)}, "parameters": {arguments}}}')


def _tool_turns(message: Message) -> Iterator[PromptPart]:
    for part in message.parts:
        if not isinstance(part, ToolResult):
            raise UnsupportedInputError(f"A tool message can't hold a {type(part).__name__}.")
        images = [content for content in part.parts if isinstance(content, Image)]
        text = "\n".join(content.text for content in part.parts if isinstance(content, Text))
        # As a JSON string, as the template published with the 11B writes tool results.
        yield from _turn("ipython", *images, json.dumps(text, ensure_ascii=False))


def _tool(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps({"type": "function", "function": function}, indent=4, ensure_ascii=False)

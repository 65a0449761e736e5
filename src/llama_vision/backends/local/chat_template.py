"""Llama 3.2 chat template.

After Meta's prompt format pages (https://www.llama.com/docs/model-cards-and-prompt-formats/) and the output of the
template published with the 11B. Special tokens are separate from text all the way to the tokenizer, so `<|eot_id|>` in a
user's text is ten characters and not the end of the turn.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Part, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, Tool


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A special token, which no text can spell."""

    token: str


PromptPart: TypeAlias = SpecialToken | str | Image
"""A part of a rendered prompt; an `Image` stands for its `<|image|>` token."""

IMAGE_TOKEN = SpecialToken("<|image|>")

_ALLOWED_PARTS: dict[str, tuple[type[Part], ...]] = {
    "system": (Text,),
    "user": (Text, Image),
    "assistant": (Text, ToolCall),
    "tool": (ToolResult,),
}

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
    for message in request.messages:
        _check_parts(message)
    system, turns = _split_system(request.messages)
    parts: list[PromptPart] = [SpecialToken("<|begin_of_text|>")]
    if not request.images():
        environment = "Environment: ipython\n" if request.tools else ""
        parts += _turn("system", environment + _DATE_HEADER + system)
    elif system:  # against the format: `adaptation.message_order` moves it into the user's turn
        parts += _turn("system", system)
    instructions = "".join([_TOOL_INSTRUCTIONS, *map(_tool, request.tools)]) if request.tools else ""
    for message in turns:
        parts += _message(message, instructions)
        instructions = "" if message.role == "user" else instructions
    if instructions:
        raise UnsupportedInputError("The local model needs a user message to offer tools with.")
    return [*parts, *_header("assistant")]


def _check_parts(message: Message) -> None:
    for part in message.parts:
        if not isinstance(part, _ALLOWED_PARTS[message.role]):
            article = "An" if message.role == "assistant" else "A"
            raise UnsupportedInputError(
                f"{article} {message.role} message can't hold a {type(part).__name__}."
            )


def _split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Join the leading system messages. Later ones stay turns of their own."""
    count = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    texts = [message.text.strip() for message in messages[:count]]
    return "\n\n".join(filter(None, texts)), list(messages[count:])


def _header(role: str) -> list[PromptPart]:
    return [SpecialToken("<|start_header_id|>"), role, SpecialToken("<|end_header_id|>"), "\n\n"]


def _turn(role: str, *content: PromptPart) -> list[PromptPart]:
    """Render a turn. Adjacent texts are merged, because they are tokenized together."""
    merged: list[PromptPart] = []
    for part in (*_header(role), *content, SpecialToken("<|eot_id|>")):
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
            yield from _turn("system", message.text)
        case "assistant":
            yield from _assistant_turns(message)
        case "tool":
            yield from _tool_turns(message)


def _user_turn(message: Message, instructions: str) -> list[PromptPart]:
    """Render a user message, with the tool instructions before its first text."""
    content: list[PromptPart] = []
    before = instructions + (f"{message.name}: " if message.name else "")
    for part in message.parts:
        if isinstance(part, Image):
            content.append(part)
        elif isinstance(part, Text):
            follows_text = bool(content) and isinstance(content[-1], str)
            content.append(before + ("\n" if follows_text else "") + part.text)
            before = ""
    return _turn("user", *content, before)


def _assistant_turns(message: Message) -> Iterator[PromptPart]:
    """Render an assistant message. The format has one call a turn, so several calls become several turns."""
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    if message.text or not calls:
        yield from _turn("assistant", message.text)
    for call in calls:
        arguments = call.arguments if call.arguments.strip() else "{}"
        yield from _turn("assistant", f'{{"name": {json.dumps(call.name)}, "parameters": {arguments}}}')


def _tool_turns(message: Message) -> Iterator[PromptPart]:
    for result in (part for part in message.parts if isinstance(part, ToolResult)):
        images = [content for content in result.parts if isinstance(content, Image)]
        # As a JSON string, as the template published with the 11B writes tool results.
        yield from _turn("ipython", *images, json.dumps(result.text, ensure_ascii=False))


def _tool(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps({"type": "function", "function": function}, indent=4, ensure_ascii=False) + "\n\n"

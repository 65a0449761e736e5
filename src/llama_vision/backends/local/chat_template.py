"""Llama 3.2's prompt format, rendered by us.

After Meta's model card and prompt format pages (https://www.llama.com/docs/model-cards-and-prompt-formats/) and what
the template published with the 11B produces. Control tokens are kept apart from words all the way to the tokenizer, so
`<|eot_id|>` in a user's text is ten harmless characters and not the end of the turn.
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
    """A control token, which stands for itself and can't be written in words."""

    token: str


PromptPart: TypeAlias = SpecialToken | str | Image
"""A piece of a prompt; an `Image` stands where its `<|image|>` goes."""

_BEGIN = SpecialToken("<|begin_of_text|>")
_END_OF_TURN = SpecialToken("<|eot_id|>")
IMAGE_TOKEN = SpecialToken("<|image|>")

# The format wants a date. A fixed one keeps the same question the same prompt tomorrow.
_DATE_HEADER = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
_TOOL_INSTRUCTIONS = (
    "Given the following functions, please respond with a JSON for a function call "
    "with its proper arguments that best answers the given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)


def apply_chat_template(request: ChatRequest) -> list[PromptPart]:
    """Write a request as Llama 3.2 expects it, up to where the model's answer begins.

    Args:
        request: The conversation and its tools.

    Returns:
        The pieces in order.

    Raises:
        UnsupportedInputError: A part stands where its role can't have one.

    """
    system, turns = _split_system(request.messages)
    pieces: list[PromptPart] = [_BEGIN]
    if not request.images():
        environment = "Environment: ipython\n" if request.tools else ""
        pieces += _turn("system", environment + _DATE_HEADER + system)
    elif system:  # against the format; `providers.shaping` folds it into the user's turn before it comes here
        pieces += _turn("system", system)
    guidance = (
        _TOOL_INSTRUCTIONS + "".join(_tool(tool) + "\n\n" for tool in request.tools) if request.tools else ""
    )
    for message in turns:
        pieces += _message(message, guidance)
        guidance = "" if message.role == "user" else guidance
    if guidance:
        raise UnsupportedInputError("The local model needs a user message to offer tools with.")
    return [*pieces, *_header("assistant")]


def _split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Take the leading system messages off. Later ones stay in their places as turns."""
    count = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
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


def _merge_text(pieces: Sequence[PromptPart]) -> list[PromptPart]:
    """Make neighbouring words one piece, because they are turned into tokens together."""
    joined: list[PromptPart] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return joined


def _message(message: Message, guidance: str) -> Iterator[PromptPart]:
    match message.role:
        case "user":
            yield from _user_turn(message, guidance)
        case "system":
            yield from _turn("system", _system_text(message))
        case "assistant":
            yield from _assistant_turns(message)
        case "tool":
            yield from _tool_turns(message)
        case _:
            assert_never(message.role)


def _user_turn(message: Message, guidance: str) -> list[PromptPart]:
    """Render what the user says, with the guidance for tools before the first words."""
    content: list[PromptPart] = []
    before = guidance + (f"{message.name}: " if message.name else "")
    for part in message.parts:
        match part:
            case Image():
                content.append(part)
            case Text():
                follows_words = bool(content) and isinstance(content[-1], str)
                content.append(before + ("\n" if follows_words else "") + part.text)
                before = ""
            case ToolCall() | ToolResult():
                raise UnsupportedInputError(f"A user message can't hold a {type(part).__name__}.")
            case _:
                assert_never(part)
    return _turn("user", *content, before)


def _assistant_turns(message: Message) -> Iterator[PromptPart]:
    """Render what the model said. It knows one call a turn, so several become several turns."""
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
        images = [inner for inner in part.parts if isinstance(inner, Image)]
        text = "\n".join(inner.text for inner in part.parts if isinstance(inner, Text))
        # As JSON text, the way the template published with the 11B writes every string a tool returns.
        yield from _turn("ipython", *images, json.dumps(text, ensure_ascii=False))


def _tool(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps({"type": "function", "function": function}, indent=4, ensure_ascii=False)

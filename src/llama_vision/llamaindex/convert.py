"""LlamaIndex's messages and ours, in both directions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llama_vision.adaptation.invalid_tool_calls import replace_invalid_tool_calls
from llama_vision.core.call_options import CALL_OPTIONS, build_request
from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.events import Event, Finished, Started, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Image, Message, Part, Role, Text, ToolCall, ToolResult
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.llamaindex.images import message_blocks, to_image
from llama_vision.providers.provider import Provider

_ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def to_request(
    provider: Provider,
    messages: Sequence[ChatMessage],
    options: Mapping[str, Any],
    additional: Mapping[str, Any],
) -> ChatRequest:
    """Translate a call; nothing given is changed.

    Args:
        provider: Whose names the models have.
        messages: The conversation.
        options: Fields of the model, overridden by the arguments of the call; `model` among them.
        additional: `additional_kwargs`: options too, and fields of the provider's own.

    Returns:
        The request.

    Raises:
        UnsupportedInputError: An option or a part of a message can't be expressed; the text names it.
        ImageError: An image can't be read.

    """
    known = {name: value for name, value in additional.items() if name in CALL_OPTIONS}
    own = {name: value for name, value in additional.items() if name not in CALL_OPTIONS}
    merged = {**known, **{name: value for name, value in options.items() if value is not None}}
    model: str = merged.pop("model")
    extra_body: dict[str, Any] = {**own, **as_mapping(merged.pop("extra_body", None))}
    return build_request(
        provider.model_info(model).id, to_messages(messages), {**merged, "extra_body": extra_body}
    )


def to_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Translate a conversation.

    Calls whose arguments can't be read are told in words, and so is what was answered to them: many servers refuse
    arguments that are not JSON.

    Args:
        messages: LlamaIndex's.

    Returns:
        Ours.

    Raises:
        UnsupportedInputError: A message holds what a Llama can't be shown; the text names the message.
        ImageError: An image can't be read; the text names the message.

    """
    translated: list[Message] = []
    for position, message in enumerate(messages):
        try:
            translated.append(_to_message(message))
        except (UnsupportedInputError, ImageError) as error:
            raise type(error)(f"Message {position} ({message.role.value}): {error}") from error
    return tuple(replace_invalid_tool_calls(translated, _is_readable))


def _is_readable(call: ToolCall) -> bool:
    try:
        call.parsed()
    except ValueError:
        return False
    return True


def _to_message(message: ChatMessage) -> Message:
    role = _ROLES[message.role]
    parts = [part for block in message_blocks(message) if (part := _part(block)) is not None]
    name: Any = message.additional_kwargs.get("name")
    if role == "tool":
        content = tuple(part for part in parts if isinstance(part, (Text, Image)))
        call_id: Any = message.additional_kwargs.get("tool_call_id")
        if not call_id:
            raise UnsupportedInputError('A tool\'s result needs additional_kwargs={"tool_call_id": ...}.')
        return Message(role, (ToolResult(call_id, content),), name)
    if role == "assistant" and not any(isinstance(part, ToolCall) for part in parts):
        parts += legacy_tool_calls(message)
    return Message(role, tuple(parts), name)


def _part(block: object) -> Part | None:
    match block:
        case TextBlock():
            return Text(block.text) if block.text else None
        case ImageBlock():
            return to_image(block)
        case ToolCallBlock():
            arguments = block.tool_kwargs
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            return ToolCall(block.tool_call_id, block.tool_name, text)
        case ThinkingBlock() | CachePoint():
            return None  # private thoughts are not sent back, and a cache mark is no content
        case _:
            raise UnsupportedInputError(
                f"A {type(block).__name__} can't be shown to Llama 3.2 Vision. It takes text and images: "
                "for a PDF or a video pass images of its pages or frames, for sound its words."
            )


def legacy_tool_calls(message: ChatMessage) -> list[ToolCall]:
    """Read calls that stand only in `additional_kwargs`, as they did before there were blocks.

    Args:
        message: LlamaIndex's, of the model.

    Returns:
        Ours.

    Raises:
        UnsupportedInputError: Something else stands there.

    """
    calls: list[ToolCall] = []
    for spec in message.additional_kwargs.get("tool_calls") or ():
        call = as_mapping(spec)
        function = as_mapping(call.get("function"))
        if not isinstance(function.get("name"), str):
            raise UnsupportedInputError(
                'additional_kwargs["tool_calls"] holds something that is not {"id", "function": {"name", "arguments"}}.'
            )
        calls.append(ToolCall(call.get("id"), function["name"], function.get("arguments") or ""))
    return calls


def to_response(reply: Reply, provider: str, delta: str | None = None) -> ChatResponse:
    """Translate a reply, whole or as far as it has come.

    Args:
        reply: Ours.
        provider: The name of the provider that gave it.
        delta: The words that are new, in a stream.

    Returns:
        LlamaIndex's response. Tool calls stand in its blocks, and for older parts of LlamaIndex also in
        `message.additional_kwargs["tool_calls"]`; token counts in `raw["usage"]` and `additional_kwargs`.

    """
    blocks: list[TextBlock | ToolCallBlock] = []
    if reply.text or not reply.tool_calls:
        blocks.append(TextBlock(text=reply.text))
    cut = reply.finish_reason == "length"
    blocks += [call_block(call, cut=cut) for call in reply.tool_calls]
    additional: dict[str, Any] = (
        {"tool_calls": [_openai_call(call) for call in reply.tool_calls]} if reply.tool_calls else {}
    )
    counts = _token_counts(reply.usage)
    raw = {
        "provider": provider,
        "model": reply.model,
        "id": reply.id,
        "request_id": reply.request_id,
        "finish_reason": reply.finish_reason,
        "usage": counts or None,
    }
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=additional),
        raw=raw,
        delta=delta,
        additional_kwargs={**counts, **_cost(reply.usage)},
    )


class SnapshotConverter:
    """Translates the events of one reply as they come, to LlamaIndex's growing snapshots."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._builder = ReplyBuilder()

    def to_response(self, event: Event) -> ChatResponse | None:
        """Translate the next event.

        Args:
            event: Ours.

        Returns:
            All of the reply so far; None for an event that adds nothing to see.

        """
        self._builder.add(event)
        match event:
            case TextDelta():
                return to_response(self._builder.reply(), self._provider, event.text)
            case ToolCallDelta() | Finished():
                return to_response(self._builder.reply(), self._provider, "")
            case Started() | UsageReport():
                return None
            case _:
                assert_never(event)


def call_block(call: ToolCall, *, cut: bool) -> ToolCallBlock:
    """Give the arguments as an object once they are one, and as the text so far until then.

    Args:
        call: The call, whole or as far as it has come.
        cut: Whether the reply was cut: no text at all is then no object, for the arguments had not begun.

    Returns:
        LlamaIndex's block.

    """
    if cut and not call.arguments.strip():
        return ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments)
    try:
        arguments: dict[str, Any] | str = call.parsed()
    except ValueError:
        arguments = call.arguments
    return ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=arguments)


def _openai_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _token_counts(usage: Usage) -> dict[str, int]:
    """Name the token counts as LlamaIndex's `TokenCountingHandler` looks for them; empty where nobody told them."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        **({"cached_tokens": usage.cached_input_tokens} if usage.cached_input_tokens is not None else {}),
    }


def _cost(usage: Usage) -> dict[str, Any]:
    if usage.cost_usd is None:
        return {}
    return {"cost_usd": usage.cost_usd, "cost_is_estimate": usage.cost_is_estimate}

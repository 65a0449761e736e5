"""Converts between LlamaIndex's messages and ours."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, assert_never, cast

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from pydantic import BaseModel

from llama_vision.adaptation.invalid_tool_calls import replace_invalid_tool_calls
from llama_vision.backends.model_fields import BACKEND_OPTIONS
from llama_vision.core.call_options import CALL_OPTIONS, build_request
from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.events import (
    Event,
    Finished,
    LogprobsDelta,
    MetadataReport,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Document, Image, Message, Part, Role, Text, ToolCall, ToolResult
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.llamaindex.documents import to_document
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
    """Convert a call to a request; the arguments are not modified.

    Args:
        provider: The provider, which knows the model's id.
        messages: The conversation.
        options: Fields of the LLM, overridden by the arguments of the call; `model` among them.
        additional: `additional_kwargs`: further options, and provider-specific fields of the body.

    Raises:
        UnsupportedInputError: An option or a part of a message can't be expressed; the text names it.
        ImageError: An image can't be read.
    """
    known = {name: value for name, value in additional.items() if name in CALL_OPTIONS}
    specific = {
        name: value for name, value in additional.items() if name not in CALL_OPTIONS | BACKEND_OPTIONS
    }
    given = {
        name: value for name, value in options.items() if value is not None and name not in BACKEND_OPTIONS
    }
    merged = {**known, **given}
    model: str = merged.pop("model")
    extra_body: dict[str, Any] = {**specific, **as_mapping(merged.pop("extra_body", None))}
    return build_request(
        provider.model_info(model).id, to_messages(messages), {**merged, "extra_body": extra_body}
    )


def to_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Convert a conversation; invalid tool calls and their results become text, since many servers refuse them.

    Raises:
        UnsupportedInputError: A message holds a part that the model can't take; the text names the message.
        ImageError: An image can't be read; the text names the message.
    """
    converted: list[Message] = []
    for position, message in enumerate(messages):
        try:
            converted.append(_to_message(message))
        except (UnsupportedInputError, ImageError) as error:
            raise type(error)(f"Message {position} ({message.role.value}): {error}") from error
    return tuple(replace_invalid_tool_calls(converted, _has_valid_arguments))


def _has_valid_arguments(call: ToolCall) -> bool:
    try:
        call.parsed()
    except ValueError:
        return False
    return True


def _to_message(message: ChatMessage) -> Message:
    role = _ROLES[message.role]
    parts = [part for block in message_blocks(message) if (part := _to_part(block, role)) is not None]
    name: Any = message.additional_kwargs.get("name")
    if role == "tool":
        content = tuple(part for part in parts if isinstance(part, (Text, Image, Document)))
        call_id: Any = message.additional_kwargs.get("tool_call_id")
        if not call_id:
            raise UnsupportedInputError('A tool\'s result needs additional_kwargs={"tool_call_id": ...}.')
        return Message(role, (ToolResult(call_id, content),), name)
    if role == "assistant" and not any(isinstance(part, ToolCall) for part in parts):
        parts += legacy_tool_calls(message)
    return Message(role, tuple(parts), name)


def _to_part(block: object, role: Role) -> Part | None:  # noqa: PLR0911 - one return for each type
    """Convert a block; None for a cache point, which is no content, and for what another model wrote for itself."""
    match block:
        case TextBlock():
            return Text(block.text) if block.text else None
        case ImageBlock():
            return to_image(block)
        case ToolCallBlock():
            return _to_call(block)
        case DocumentBlock() if role != "assistant":
            return to_document(block)
        case _ if role == "assistant" or isinstance(block, CachePoint):  # reasoning, citations, documents
            return None
        case CitableBlock(content=content) if role == "tool" and all(
            isinstance(each, TextBlock) for each in content
        ):
            return Text(block.model_dump_json(exclude_none=True))
        case CitationBlock(cited_content=TextBlock()) | ThinkingBlock() if role == "tool":
            return Text(block.model_dump_json(exclude_none=True))
        case _:
            raise UnsupportedInputError(
                f"A {type(block).__name__} can't be shown to Llama 3.2 Vision. It takes text, images and PDFs: "
                "for a video pass images of its frames, for sound its words."
            )


def _to_call(block: ToolCallBlock) -> ToolCall:
    return _tool_call(block.tool_call_id, block.tool_name, block.tool_kwargs)


def _tool_call(call_id: str | None, name: str, arguments: object) -> ToolCall:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(call_id, name, text)


def is_empty_system_message(message: ChatMessage) -> bool:
    """Tell whether a system message holds no text."""
    return message.role is MessageRole.SYSTEM and all(
        isinstance(block, TextBlock) and not block.text.strip() for block in message.blocks
    )


def legacy_tool_calls(message: ChatMessage) -> list[ToolCall]:
    """Read the tool calls of `additional_kwargs`, where they were before there were blocks, as any integration wrote them.

    OpenAI's chat completions and Ollama have a `function`, OpenAI's Responses (`call_id`) and Anthropic (`input`) none;
    OpenAI's are objects of its client.
    """
    calls: list[ToolCall] = []
    for spec in message.additional_kwargs.get("tool_calls") or ():
        call = spec.model_dump() if isinstance(spec, BaseModel) else as_mapping(spec)
        function = as_mapping(call.get("function", call))
        if not isinstance(function.get("name"), str):
            raise UnsupportedInputError(
                'additional_kwargs["tool_calls"] holds something that is not {"id", "function": {"name", "arguments"}}.'
            )
        arguments = function.get("arguments") or function.get("input") or ""
        calls.append(_tool_call(call.get("call_id") or call.get("id"), function["name"], arguments))
    return calls


def to_response(reply: Reply, provider: str, delta: str | None = None) -> ChatResponse:
    """Convert a reply, whole or partial, to a response; `delta` is the new text in a stream.

    Reasoning and tool calls are in its blocks, calls for older parts of LlamaIndex also in
    `message.additional_kwargs["tool_calls"]`; token counts are in `raw["usage"]` and `additional_kwargs`.
    """
    blocks: list[ThinkingBlock | TextBlock | ToolCallBlock] = []
    if reply.reasoning:
        blocks.append(ThinkingBlock(content=reply.reasoning))
    if reply.text or not reply.tool_calls:
        blocks.append(TextBlock(text=reply.text))
    truncated = reply.finish_reason == "length"
    blocks += [call_block(call, truncated=truncated) for call in reply.tool_calls]
    legacy_calls = [_openai_call(call) for call in reply.tool_calls]
    additional: dict[str, Any] = {"tool_calls": legacy_calls} if legacy_calls else {}
    counts = _token_counts(reply.usage)
    raw = {
        "provider": provider,
        "model": reply.model,
        "id": reply.id,
        "request_id": reply.request_id,
        "finish_reason": reply.finish_reason,
        "usage": counts or None,
        **reply.metadata,
        **({"logprobs": dict(reply.logprobs)} if reply.logprobs else {}),
    }
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=additional),
        raw=raw,
        delta=delta,
        logprobs=_logprobs(reply.logprobs),
        additional_kwargs={**counts, **_cost(reply.usage)},
    )


def to_reply(response: ChatResponse) -> Reply:
    """Convert a response, whole or partial, back to a reply."""
    blocks = response.message.blocks
    return Reply(
        text=response.message.content or "",
        reasoning="".join(block.content or "" for block in blocks if isinstance(block, ThinkingBlock)),
        tool_calls=tuple(_to_call(block) for block in blocks if isinstance(block, ToolCallBlock)),
        usage=Usage.from_openai(cast("Any", response).additional_kwargs),
        finish_reason=as_mapping(response.raw).get("finish_reason"),
    )


class SnapshotConverter:
    """Converts the events of one streamed reply to LlamaIndex's snapshots: each response holds all of the reply so far.

    Attributes:
        final: The last response, once `Finished` has come.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._builder = ReplyBuilder()
        self.final: ChatResponse | None = None

    def add(self, event: Event) -> ChatResponse | None:
        """Add the next event, and return the reply so far; None if the event adds no content."""
        self._builder.add(event)
        match event:
            case TextDelta():
                return to_response(self._builder.reply(), self._provider, event.text)
            case ToolCallDelta():
                return to_response(self._builder.reply(), self._provider, "")
            case ReasoningDelta():
                response = to_response(self._builder.reply(), self._provider, "")
                # Where LlamaIndex's agents look for it.
                cast("Any", response).additional_kwargs["thinking_delta"] = event.text
                return response
            case Finished():
                self.final = to_response(self._builder.reply(), self._provider, "")
                return None
            case Started() | UsageReport() | MetadataReport() | LogprobsDelta():
                return None
            case _:
                assert_never(event)


def call_block(call: ToolCall, *, truncated: bool) -> ToolCallBlock:
    """Convert a tool call, whole or partial: arguments that are a JSON object are parsed, others stay text.

    In a reply that was cut off (`truncated`), empty arguments are missing, and not an empty object.
    """
    arguments: dict[str, Any] | str = call.arguments
    if call.arguments.strip() or not truncated:
        with contextlib.suppress(ValueError):
            arguments = call.parsed()
    return ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=arguments)


def _openai_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _logprobs(logprobs: Mapping[str, Sequence[Any]]) -> list[list[LogProb]] | None:
    """Convert OpenAI's log probabilities: for each token its alternatives, or itself where none were asked for."""
    entries = [as_mapping(entry) for entry in logprobs.get("content", ())]
    return [
        [
            LogProb(token=choice["token"], logprob=choice["logprob"], bytes=choice.get("bytes") or [])
            for choice in map(as_mapping, entry.get("top_logprobs") or [entry])
            if isinstance(choice.get("token"), str) and isinstance(choice.get("logprob"), int | float)
        ]
        for entry in entries
    ] or None


def _token_counts(usage: Usage) -> dict[str, Any]:
    """Name the token counts as LlamaIndex's `TokenCountingHandler` does; empty if the provider didn't tell them."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        **({"cached_tokens": usage.cached_input_tokens} if usage.cached_input_tokens is not None else {}),
        **({"prompt_tokens_details": dict(details)} if (details := usage.input_token_details) else {}),
        **({"completion_tokens_details": dict(details)} if (details := usage.output_token_details) else {}),
    }


def _cost(usage: Usage) -> dict[str, Any]:
    if usage.cost_usd is None:
        return {}
    return {"cost_usd": usage.cost_usd, "cost_is_estimate": usage.cost_is_estimate}

"""LangChain's messages and ours, in both directions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, assert_never, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages import ToolCall as LangChainToolCall
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from llama_vision.adaptation.invalid_tool_calls import replace_invalid_tool_calls
from llama_vision.core.call_options import build_request
from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.events import Event, Finished, Started, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Message, Role, ToolCall, ToolResult
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.langchain.content import content_parts
from llama_vision.langchain.truncated_calls import check_arguments_begun, invalidating_suffix
from llama_vision.providers.provider import Provider

MODEL_PROVIDER = "llama_vision"
"""What messages say in `response_metadata["model_provider"]`: the key of our content translator."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}


# Orders to LangChain itself, which it passes on to the hooks.
_LANGCHAIN_OPTIONS = frozenset({"stream", "strict", "ls_structured_output_format"})


def to_request(
    provider: Provider, messages: Sequence[BaseMessage], options: Mapping[str, Any]
) -> ChatRequest:
    """Translate a call; nothing given is changed.

    Args:
        provider: Whose names the models have.
        messages: The conversation.
        options: Fields of the chat model, overridden by the arguments of the call; `model` among them. Tools may
            come in any form that LangChain knows, `response_format` also as a class or a schema.

    Returns:
        The request.

    Raises:
        UnsupportedInputError: An option or a part of a message can't be expressed; the text names it.
        ImageError: An image can't be read.

    """
    ours = {name: value for name, value in options.items() if name not in _LANGCHAIN_OPTIONS}
    model: str = ours.pop("model")
    ours["tools"] = [convert_to_openai_tool(tool) for tool in ours.get("tools") or ()]
    ours["response_format"] = _response_format(ours.get("response_format"))
    return build_request(provider.model_info(model).id, to_messages(messages), ours)


def _response_format(spec: object) -> dict[str, Any] | None:
    """Spell a class or a schema as OpenAI's `response_format`."""
    if spec is None or as_mapping(spec).get("type") in ("text", "json_object", "json_schema"):
        return cast("dict[str, Any] | None", spec)
    schema = convert_to_json_schema(cast("dict[str, Any] | type", spec))
    return {"type": "json_schema", "json_schema": {"name": schema.get("title", "answer"), "schema": schema}}


def to_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Translate a conversation; the messages given are not changed.

    Calls whose arguments can't be read are told in words, and so is what was answered to them: many servers refuse
    arguments that are not JSON.

    Args:
        messages: LangChain's.

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
            raise type(error)(f"Message {position} ({message.type}): {error}") from error
    said = [message for message in messages if isinstance(message, AIMessage)]
    invalid = [call for message in said for call in invalid_tool_calls(message)]
    return tuple(replace_invalid_tool_calls(translated, lambda call: call not in invalid))


def _to_message(message: BaseMessage) -> Message:
    parts = content_parts(cast("str | list[str | dict[str, Any]]", message.content))
    match message:
        case ToolMessage():
            return Message("tool", (ToolResult(message.tool_call_id, parts),), message.name)
        case AIMessage():
            return Message(
                "assistant", (*parts, *invalid_tool_calls(message), *valid_tool_calls(message)), message.name
            )
        case HumanMessage():
            return Message("user", parts, message.name)
        case SystemMessage():
            return Message("system", parts, message.name)
        case ChatMessage() if message.role in _ROLES:
            return Message(_ROLES[message.role], parts, message.name)
        case _:
            raise UnsupportedInputError(
                f"{type(message).__name__} has no place in a chat with this model. "
                "Use a HumanMessage, AIMessage, SystemMessage or ToolMessage."
            )


def valid_tool_calls(message: AIMessage) -> list[ToolCall]:
    """Translate the calls whose arguments are a JSON object."""
    return [
        ToolCall(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
        for call in message.tool_calls
    ]


def invalid_tool_calls(message: AIMessage) -> list[ToolCall]:
    """Translate the calls whose arguments are not a JSON object, as they were written."""
    return [
        ToolCall(call["id"], call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls
    ]


def to_message(reply: Reply, provider: str) -> AIMessage:
    """Translate a whole reply.

    Args:
        reply: Ours.
        provider: The name of the provider that gave it.

    Returns:
        LangChain's message, with usage and metadata.

    """
    calls, invalid = _split_calls(reply)
    return AIMessage(
        content=reply.text,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=_usage_metadata(reply.usage),
        response_metadata=_metadata(reply, provider),
    )


def _split_calls(reply: Reply) -> tuple[list[LangChainToolCall], list[InvalidToolCall]]:
    valid: list[LangChainToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in reply.tool_calls:
        try:
            check_arguments_begun(call.arguments, reply.finish_reason)
            valid.append(tool_call(name=call.name, args=call.parsed(), id=call.id))
        except ValueError as error:
            invalid.append(
                invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error=str(error))
            )
    return valid, invalid


class ChunkConverter:
    """Translates the events of one reply as they come."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._received = ReplyBuilder()

    def to_chunk(self, event: Event) -> ChatGenerationChunk | None:
        """Translate the next event.

        Usage and metadata ride on the last chunk alone: LangChain adds up numbers and strings of chunks it merges.

        Args:
            event: Ours.

        Returns:
            LangChain's chunk; None for an event that has none of its own.

        """
        match event:
            case TextDelta():
                message = AIMessageChunk(
                    content=event.text, response_metadata={"model_provider": MODEL_PROVIDER}
                )
            case ToolCallDelta():
                self._received.add(event)
                fragment = tool_call_chunk(
                    name=event.name, args=event.arguments, id=event.id, index=event.index
                )
                message = AIMessageChunk(
                    content="",
                    tool_call_chunks=[fragment],
                    response_metadata={"model_provider": MODEL_PROVIDER},
                )
            case Started() | UsageReport():
                self._received.add(event)
                return None
            case Finished():
                message = self._final_chunk(event)
            case _:
                assert_never(event)
        return ChatGenerationChunk(message=message)

    def _final_chunk(self, event: Finished) -> AIMessageChunk:
        endings = {
            index: invalidating_suffix(call.arguments, event.reason)
            for index, call in self._received.calls_by_index()
        }
        self._received.add(event)
        end = self._received.reply()
        return AIMessageChunk(
            content="",
            chunk_position="last",
            tool_call_chunks=[
                tool_call_chunk(args=text, index=index) for index, text in endings.items() if text
            ],
            usage_metadata=_usage_metadata(end.usage),
            response_metadata=_metadata(end, self._provider),
        )


def _metadata(reply: Reply, provider: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "model_provider": MODEL_PROVIDER,
        "provider": provider,
        "model_name": reply.model,
        "finish_reason": reply.finish_reason,
        "id": reply.id,
        "request_id": reply.request_id,
        "cost_usd": reply.usage.cost_usd,
    }
    if reply.usage.cost_usd is not None:
        metadata["cost_is_estimate"] = reply.usage.cost_is_estimate
    return {name: value for name, value in metadata.items() if value is not None}


def _usage_metadata(usage: Usage) -> UsageMetadata | None:
    """Give counts only where both are known: LangChain has no way to say that one is not."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    metadata = UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
    )
    if usage.cached_input_tokens is not None:
        metadata["input_token_details"] = InputTokenDetails(cache_read=usage.cached_input_tokens)
    return metadata

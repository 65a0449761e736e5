"""Conversion between LangChain's messages and ours."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
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
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from llama_vision.adaptation.invalid_tool_calls import replace_invalid_tool_calls
from llama_vision.backends.model_fields import BACKEND_OPTIONS
from llama_vision.core.call_options import build_request, unsupported_tool
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
from llama_vision.core.messages import Message, Role, ToolCall, ToolResult
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.langchain.content import content_parts
from llama_vision.langchain.truncated_calls import check_arguments_begun, invalidating_suffix
from llama_vision.providers.provider import Provider

MODEL_PROVIDER = "llama_vision"
"""`response_metadata["model_provider"]` of our messages, and `ls_provider` of traces: the key of our content-block translator.

It is the same for every company: LangChain has translators of its own under the names of some. Traces have the company
as `provider` in their invocation parameters, messages in `response_metadata`."""

_CHUNK_METADATA = {"model_provider": MODEL_PROVIDER}  # pydantic copies it into each chunk

REASONING = "reasoning_content"
"""Where a message has its reasoning in `additional_kwargs`: LangChain's own name, which its content blocks are made of."""

# OpenRouter's name: https://openrouter.ai/docs/features/prompt-caching
_TOKEN_DETAILS = {"cache_write_tokens": "cache_creation"}

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}

_LANGCHAIN_OPTIONS = frozenset({"stream", "strict", "ls_structured_output_format"})
"""Options for LangChain itself, which passes them on to the hooks."""

_NOT_OF_THE_REQUEST = _LANGCHAIN_OPTIONS | BACKEND_OPTIONS

_TOOL_KEYS = frozenset({"name", "function", "title", "toolSpec"})
"""What a function has in OpenAI's or Anthropic's form, as a JSON schema, or in Bedrock's form: one of these."""


def to_request(
    provider: Provider, messages: Sequence[BaseMessage], options: Mapping[str, Any]
) -> ChatRequest:
    """Convert a call to a request; the arguments are not modified.

    Args:
        provider: The provider, which knows the model's id.
        messages: The conversation.
        options: Fields of the chat model, overridden by the arguments of the call; `model` among them. Tools may have any
            form that LangChain knows; `response_format` may be a class or a schema.

    Raises:
        UnsupportedInputError: An option or a part of a message can't be expressed; the text names it.
        ImageError: An image can't be read.
    """
    call = {name: value for name, value in options.items() if name not in _NOT_OF_THE_REQUEST}
    model: str = call.pop("model")
    call["tools"] = [to_openai_tool(tool) for tool in call.get("tools") or ()]
    call["response_format"] = _response_format(call.get("response_format"))
    return build_request(provider.model_info(model).id, to_messages(messages), call)


def to_openai_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Convert a tool of any form that LangChain knows to OpenAI's.

    Raises:
        UnsupportedInputError: It is a company's built-in tool, whose `type` LangChain would drop; the text names it.
    """
    spec = as_mapping(tool)
    is_function = spec.keys() & _TOOL_KEYS and (
        spec.get("type") in (None, "function", "object") or "input_schema" in spec
    )
    if spec is tool and not is_function:
        raise unsupported_tool(spec)
    return convert_to_openai_tool(tool, strict=strict)


def relax_response_format(spec: Any) -> Any:
    """Ask for a JSON schema with `strict=False`, unless it says something else; anything else stays as it is."""
    details = as_mapping(as_mapping(spec).get("json_schema"))
    return {**spec, "json_schema": {"strict": False, **details}} if details else spec


def _response_format(spec: object) -> dict[str, Any] | None:
    """Convert a class or a schema to OpenAI's `response_format`."""
    if spec is None or as_mapping(spec).get("type") in ("text", "json_object", "json_schema"):
        return cast("dict[str, Any] | None", spec)
    schema = convert_to_json_schema(cast("dict[str, Any] | type", spec))
    return {"type": "json_schema", "json_schema": {"name": schema.get("title", "answer"), "schema": schema}}


def to_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
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
            raise type(error)(f"Message {position} ({message.type}): {error}") from error
    replies = [message for message in messages if isinstance(message, AIMessage)]
    invalid = [call for message in replies for call in invalid_tool_calls(message)]
    return tuple(
        replace_invalid_tool_calls(converted, lambda call: call not in invalid) if invalid else converted
    )


def _to_message(message: BaseMessage) -> Message:
    role = _role(message)
    parts = content_parts(cast("str | list[str | dict[str, Any]]", message.content), role)
    match message:
        case ToolMessage():
            return Message(role, (ToolResult(message.tool_call_id, parts),), message.name)
        case AIMessage():
            return Message(
                role, (*parts, *invalid_tool_calls(message), *valid_tool_calls(message)), message.name
            )
        case _:
            return Message(role, parts, message.name)


def _role(message: BaseMessage) -> Role:
    match message:
        case ToolMessage():
            return "tool"
        case AIMessage():
            return "assistant"
        case HumanMessage():
            return "user"
        case SystemMessage():
            return "system"
        case ChatMessage() if message.role in _ROLES:
            return _ROLES[message.role]
        case _:
            raise UnsupportedInputError(
                f"{type(message).__name__} has no place in a chat with this model. "
                "Use a HumanMessage, AIMessage, SystemMessage or ToolMessage."
            )


def valid_tool_calls(message: AIMessage) -> list[ToolCall]:
    """Convert the calls whose arguments are a JSON object."""
    return [
        ToolCall(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
        for call in message.tool_calls
    ]


def invalid_tool_calls(message: AIMessage) -> list[ToolCall]:
    """Convert the calls whose arguments are not a JSON object, as they were written."""
    return [
        ToolCall(call["id"], call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls
    ]


def to_message(reply: Reply, provider: str) -> AIMessage:
    """Convert a reply to a message with usage and metadata."""
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
    return AIMessage(
        content=reply.text,
        additional_kwargs={REASONING: reply.reasoning} if reply.reasoning else {},
        tool_calls=valid,
        invalid_tool_calls=invalid,
        usage_metadata=_usage_metadata(reply.usage),
        response_metadata=_metadata(reply, provider)
        | ({"logprobs": dict(reply.logprobs)} if reply.logprobs else {}),
    )


class ChunkConverter:
    """Converts the events of one streamed reply."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._builder = ReplyBuilder()

    def to_chunk(self, event: Event) -> ChatGenerationChunk | None:
        """Convert the next event; None for one that has no chunk of its own.

        Usage and metadata are on the last chunk only: LangChain adds up numbers and concatenates strings when merging
        chunks. Lists it joins, so log probabilities are on the chunk they came with.
        """
        match event:
            case TextDelta():
                message = AIMessageChunk(content=event.text, response_metadata=_CHUNK_METADATA)
            case ToolCallDelta():
                self._builder.add(event)
                fragment = tool_call_chunk(
                    name=event.name, args=event.arguments, id=event.id, index=event.index
                )
                message = AIMessageChunk(
                    content="", tool_call_chunks=[fragment], response_metadata=_CHUNK_METADATA
                )
            case ReasoningDelta():
                message = AIMessageChunk(
                    content="",
                    additional_kwargs={REASONING: event.text},
                    response_metadata=_CHUNK_METADATA,
                )
            case LogprobsDelta():
                message = AIMessageChunk(
                    content="", response_metadata={**_CHUNK_METADATA, "logprobs": dict(event.logprobs)}
                )
            case Started() | UsageReport() | MetadataReport():
                self._builder.add(event)
                return None
            case Finished():
                message = self._final_chunk(event)
            case _:
                assert_never(event)
        return ChatGenerationChunk(message=message)

    def _final_chunk(self, event: Finished) -> AIMessageChunk:
        endings = {
            index: invalidating_suffix(call.arguments, event.reason)
            for index, call in self._builder.calls_by_index()
        }
        self._builder.add(event)
        end = self._builder.reply()
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
        "cost_is_estimate": None if reply.usage.cost_usd is None else reply.usage.cost_is_estimate,
        **reply.metadata,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _usage_metadata(usage: Usage) -> UsageMetadata | None:
    """Return counts only if both are known: LangChain has no way to leave one out."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    metadata = UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
    )
    if input_details := _token_details(usage.input_token_details):
        metadata["input_token_details"] = cast("InputTokenDetails", input_details)
    if usage.cached_input_tokens is not None:
        metadata["input_token_details"] = {
            **metadata.get("input_token_details", {}),
            "cache_read": usage.cached_input_tokens,
        }
    if output_details := _token_details(usage.output_token_details):
        metadata["output_token_details"] = cast("OutputTokenDetails", output_details)
    return metadata


def _token_details(details: Mapping[str, int]) -> dict[str, int]:
    """Name counts as LangChain does: `audio` for `audio_tokens`, and so `image` for `image_tokens`."""
    return {_TOKEN_DETAILS.get(name, name.removesuffix("_tokens")): count for name, count in details.items()}


def to_result(reply: Reply, provider: str) -> ChatResult:
    """Convert a reply to a result, with the token counts under OpenAI's names in `llm_output`, for callbacks."""
    message = to_message(reply, provider)
    output: dict[str, Any] = {} if reply.model is None else {"model_name": reply.model}
    if usage := message.usage_metadata:
        output["token_usage"] = {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
        }
    return ChatResult(generations=[ChatGeneration(message=message)], llm_output=output)


def combine_llm_outputs(outputs: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Add up the token counts of several `llm_output`s, if all have them; None is one streamed or cached."""
    known = [output or {} for output in outputs]
    names = [output["model_name"] for output in known if "model_name" in output]
    total: dict[str, Any] = {"model_name": names[-1]} if names else {}
    if known and all("token_usage" in output for output in known):
        counts: list[Mapping[str, int]] = [output["token_usage"] for output in known]
        total["token_usage"] = {
            name: sum(count.get(name, 0) for count in counts) for name in dict.fromkeys(chain(*counts))
        }
    return total

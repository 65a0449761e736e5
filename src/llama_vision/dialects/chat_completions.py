"""The chat completions dialect: what OpenAI began and most hosts speak, each a little differently."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.request import ChatRequest, ResponseFormat, Tool, ToolChoice
from llama_vision.dialects.chat_completions_decoder import ChatCompletionsDecoder
from llama_vision.dialects.chat_completions_messages import encode_messages
from llama_vision.dialects.dialect import WireCall
from llama_vision.dialects.error_bodies import find_request_id

_OWN_FIELDS = frozenset({"model", "messages", "stream", "tools", "tool_choice", "max_tokens", "stop"})


@dataclass(frozen=True, slots=True)
class ChatCompletionsDialect:
    """The dialect, with what differs between hosts as fields.

    Attributes:
        path: What follows the base URL.
        stream_options: Whether `stream_options.include_usage` is known.

    """

    path: str = "/chat/completions"
    stream_options: bool = True

    def encode(self, request: ChatRequest, *, stream: bool) -> WireCall:
        """Put a request into the provider's words; see `Dialect.encode`."""
        body: dict[str, Any] = {"model": request.model, "messages": encode_messages(request.messages)}
        body |= _sampling(request)
        body |= _tools(request)
        if request.response_format is not None:
            body["response_format"] = _response_format(request.response_format)
        if stream:
            body["stream"] = True
            if self.stream_options and request.stream_usage:
                body["stream_options"] = {"include_usage": True}
        body |= _checked_extra(request.extra_body)
        return WireCall(self.path, _json(body))

    def decoder(self, model: str, headers: Mapping[str, str]) -> ChatCompletionsDecoder:
        """Begin to read an answer; see `Dialect.decoder`."""
        return ChatCompletionsDecoder(model, request_id=find_request_id(headers))


def _json(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (
        TypeError,
        ValueError,
    ) as error:  # NaN, half a surrogate pair, or an object in extra_body or a schema
        raise UnsupportedInputError(f"The request can't be written as JSON: {error}.") from error


def _sampling(request: ChatRequest) -> dict[str, Any]:
    sampling = request.sampling
    named = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "stop": list(request.stop) or None,
    }
    return {name: value for name, value in named.items() if value is not None}


def _tools(request: ChatRequest) -> dict[str, Any]:
    """Describe the tools. Without tools nothing is sent: many servers answer an empty list with a 400."""
    if not request.tools:
        return {}
    body: dict[str, Any] = {"tools": [_tool(tool) for tool in request.tools]}
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _response_format(response_format: ResponseFormat) -> dict[str, Any]:
    if response_format.type != "json_schema":
        return {"type": response_format.type}
    schema: dict[str, Any] = {"name": response_format.name, "schema": dict(response_format.schema or {})}
    if response_format.strict is not None:
        schema["strict"] = response_format.strict
    return {"type": "json_schema", "json_schema": schema}


def _checked_extra(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let the user's own fields through, except those that would break what is read back."""
    if taken := sorted(_OWN_FIELDS.intersection(extra)):
        raise UnsupportedInputError(
            f"extra_body may not hold {', '.join(taken)}: use the parameter or the method of that name."
        )
    if extra.get("n", 1) not in (1, None):
        raise UnsupportedInputError(
            "extra_body asks for n > 1, but one reply is read: use batch() for several."
        )
    return extra

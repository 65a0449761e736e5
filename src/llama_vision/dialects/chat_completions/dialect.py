"""OpenAI's chat completions, which most hosts speak, each a little differently."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_vision.core.request import ChatRequest, ResponseFormat, Tool, ToolChoice
from llama_vision.dialects.body import encode_json, sampling_fields, validate_extra_body
from llama_vision.dialects.chat_completions.decoder import ChatCompletionsDecoder
from llama_vision.dialects.chat_completions.messages import encode_messages
from llama_vision.dialects.chat_completions.usage import UsageFormat
from llama_vision.dialects.chat_completions.wire import WireCompletion, WireCompletionWithExtras, parse_wire
from llama_vision.dialects.dialect import WireRequest
from llama_vision.dialects.error_bodies import ErrorParser


@dataclass(frozen=True, slots=True)
class ChatCompletionsDialect:
    """The dialect, with what differs between hosts as fields.

    Attributes:
        path: Follows the base URL.
        stream_options: Whether `stream_options.include_usage` is known.
        null_content: Whether an assistant turn of tool calls alone has null for its content; else an empty string.
        usage: Where usage and costs are reported.
        errors: What error responses mean.
    """

    path: str = "/chat/completions"
    stream_options: bool = True
    null_content: bool = True
    usage: UsageFormat = field(default_factory=UsageFormat)
    errors: ErrorParser = field(default_factory=ErrorParser)

    def encode(self, request: ChatRequest, *, stream: bool) -> WireRequest:
        """Encode a request; see `Dialect.encode`."""
        messages = encode_messages(request.messages, null_content=self.null_content)
        body: dict[str, Any] = {"model": request.model, "messages": messages}
        body |= sampling_fields(request)
        body |= _tools(request)
        if request.response_format is not None:
            body["response_format"] = _response_format(request.response_format)
        if stream:
            body["stream"] = True
            if self.stream_options and request.stream_usage:
                body["stream_options"] = {"include_usage": True}
        body |= validate_extra_body(request.extra_body)
        return WireRequest(self.path, encode_json(body))

    def decoder(
        self,
        model: str,
        headers: Mapping[str, str],
        *,
        max_tokens: int | None = None,  # noqa: ARG002 - `finish_reason` says whether the reply was cut
    ) -> ChatCompletionsDecoder:
        """Make a decoder; see `Dialect.decoder`."""
        return ChatCompletionsDecoder(model, headers, parse=self._parse, errors=self.errors, usage=self.usage)

    def _parse(self, payload: bytes) -> WireCompletion:
        """Keep all fields of those payloads only that may hold usage elsewhere: keeping them takes 20% longer."""
        for path in self.usage.paths:
            if path[0].encode() in payload:
                return parse_wire(WireCompletionWithExtras, payload)
        return parse_wire(WireCompletion, payload)


def _tools(request: ChatRequest) -> dict[str, Any]:
    """Encode the tools. Without tools nothing is sent: many servers respond to an empty list with a 400."""
    if not request.tools:
        return {}
    body: dict[str, Any] = {"tools": [encode_tool(tool) for tool in request.tools]}
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def encode_tool(tool: Tool) -> dict[str, Any]:
    """Encode a tool definition."""
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

"""OpenAI's chat completions, from the server's side: requests read, replies and chunks written.

Fields: https://platform.openai.com/docs/api-reference/chat/create, and vLLM's `top_k`, `min_p`, `repetition_penalty`.
"""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias, assert_never

from pydantic import Field, JsonValue

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
from llama_vision.core.messages import Document, Image, Message, Part, Text, ToolCall, ToolResult
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice
from llama_vision.core.usage import Usage
from llama_vision.images import image_from_bytes, image_from_url
from llama_vision.images.documents import is_document
from llama_vision.images.sources import bytes_from_base64, bytes_from_data_url
from llama_vision.serve.requests import UNLIMITED_TOKENS, Ignored, Refusing, ServedRequest, given, refuse


class _TextPart(Ignored):
    type: Literal["text"]
    text: str


class _ImageUrl(Ignored):
    url: str
    detail: str | None = None


class _ImagePart(Ignored):
    type: Literal["image_url"]
    image_url: _ImageUrl | str


class _File(Ignored):
    file_data: str
    filename: str | None = None


class _FilePart(Ignored):
    type: Literal["file"]
    file: _File


_UserPart: TypeAlias = Annotated[_TextPart | _ImagePart | _FilePart, Field(discriminator="type")]


class _SystemMessage(Ignored):
    role: Literal["system", "developer"]
    content: str | list[_TextPart]
    name: str | None = None


class _UserMessage(Ignored):
    role: Literal["user"]
    content: str | list[_UserPart]
    name: str | None = None


class _Call(Ignored):
    name: str
    arguments: str = ""


class _ToolCall(Ignored):
    id: str | None = None
    function: _Call


class _AssistantMessage(Ignored):
    role: Literal["assistant"]
    content: str | list[_TextPart] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _ToolMessage(Ignored):
    role: Literal["tool"]
    content: str | list[_UserPart]
    tool_call_id: str


_Message: TypeAlias = Annotated[
    _SystemMessage | _UserMessage | _AssistantMessage | _ToolMessage, Field(discriminator="role")
]


class _Function(Ignored):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(Ignored):
    type: Literal["function"]
    function: _Function


class _FunctionName(Ignored):
    name: str


class _NamedToolChoice(Ignored):
    type: Literal["function"]
    function: _FunctionName


class _JsonSchema(Ignored):
    name: str = "answer"
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class _ResponseFormat(Ignored):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(Ignored):
    include_usage: bool = False


class ChatCompletionRequest(Refusing):
    """The body of a request. What has no effect on the reply is read and ignored; all else that is not known is refused."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    # Only the value that changes nothing.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    # Without effect on the reply.
    user: JsonValue = None
    metadata: JsonValue = None
    store: JsonValue = None
    service_tier: JsonValue = None
    safety_identifier: JsonValue = None
    prompt_cache_key: JsonValue = None

    def to_request(self) -> ServedRequest:
        """Convert it.

        Raises:
            ImageError: An image's data URL can't be read.
            InvalidRequestError: Something is missing.
        """
        stop = self.stop or ()
        chat = ChatRequest(
            model=self.model,
            messages=tuple(_to_message(message) for message in self.messages),
            tools=tuple(_to_tool(tool.function) for tool in self.tools or ()),
            tool_choice=self._tool_choice(),
            response_format=_to_response_format(self.response_format),
            sampling=self._sampling(),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        )
        return ServedRequest(chat, stream=bool(self.stream))

    def writer(self) -> "ChatCompletionWriter":
        """Make the writer of the reply."""
        include_usage = self.stream_options is not None and self.stream_options.include_usage
        # The engine can't keep the model from calling several tools: the first counts then.
        max_tool_calls = 1 if self.parallel_tool_calls is False else None
        return ChatCompletionWriter(self.model, include_usage=include_usage, max_tool_calls=max_tool_calls)

    def _sampling(self) -> SamplingParams:
        return SamplingParams(
            max_tokens=self.max_completion_tokens or self.max_tokens or UNLIMITED_TOKENS,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            frequency_penalty=self.frequency_penalty or None,  # 0 is OpenAI's default, and does nothing
            presence_penalty=self.presence_penalty or None,
            repetition_penalty=self.repetition_penalty,
        )

    def _tool_choice(self) -> ToolChoice | None:
        choice = self.tool_choice
        if isinstance(choice, _NamedToolChoice):
            return ToolChoice("named", choice.function.name)
        if choice is None or not self.tools:
            if choice == "required":
                raise refuse("tool_choice: 'required' needs tools")
            return None
        return ToolChoice(choice)


def _to_tool(function: _Function) -> Tool:
    fields = given(parameters=function.parameters, strict=function.strict)
    return Tool(function.name, function.description or "", **fields)


def _to_response_format(response_format: _ResponseFormat | None) -> ResponseFormat | None:
    if response_format is None or response_format.type == "text":
        return None
    schema = response_format.json_schema
    if response_format.type == "json_object":
        return ResponseFormat("json_object")
    if schema is None or schema.schema_ is None:
        raise refuse("response_format.json_schema.schema is missing")
    return ResponseFormat("json_schema", schema.name, schema.schema_, schema.strict)


def _to_message(message: _Message) -> Message:
    match message:
        case _SystemMessage():
            return Message("system", tuple(_to_parts(message.content)), message.name)
        case _UserMessage():
            return Message("user", tuple(_to_parts(message.content)), message.name)
        case _ToolMessage():
            return Message("tool", (ToolResult(message.tool_call_id, tuple(_to_parts(message.content))),))
        case _AssistantMessage():
            parts: list[Part] = list(_to_parts(message.content or message.refusal or ()))
            calls = message.tool_calls or ()
            parts += [ToolCall(call.id, call.function.name, call.function.arguments) for call in calls]
            return Message("assistant", tuple(parts), message.name)
        case _:
            assert_never(message)


def _to_parts(content: str | Sequence[_UserPart]) -> Iterator[Text | Image | Document]:
    if isinstance(content, str):
        yield Text(content)
        return
    for part in content:
        match part:
            case _TextPart():
                yield Text(part.text)
            case _ImagePart(image_url=str() as url):
                yield image_from_url(url)
            case _ImagePart(image_url=_ImageUrl() as image):
                yield image_from_url(image.url, detail=image.detail)
            case _FilePart():
                yield _to_document(part.file)
            case _:
                raise AssertionError(part)


def _to_document(file: _File) -> Image | Document:
    data = bytes_from_data_url(file.file_data)
    data = bytes_from_base64(file.file_data) if data is None else data
    return Document(data=data, name=file.filename) if is_document(data) else image_from_bytes(data)


_TEXT = "\0"
"""Stands for a token's text where a chunk is prepared."""


class ChatCompletionWriter:
    """Writes one reply, whole or as the chunks of a stream."""

    media_type = "text/event-stream"

    def __init__(self, model: str, *, include_usage: bool = False, max_tool_calls: int | None = None) -> None:
        """Begin a reply; `model` is the name that the client asked for."""
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self._max_tool_calls = max_tool_calls
        # To encode a chunk anew costs more than the token that is in it.
        self._text_chunk = self._chunk({"content": _TEXT}).rsplit(json.dumps(_TEXT).encode(), 1)

    def whole(self, reply: Reply) -> bytes:
        """Write the body of a whole reply."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
        if reply.tool_calls:
            message |= {"content": reply.text or None, "tool_calls": self._tool_calls(reply)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
        body = {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(reply.usage)}
        return json.dumps(body, ensure_ascii=False).encode()

    def chunks(self, event: Event, reply: ReplyBuilder) -> Iterator[bytes]:
        """Write the next event. Tool calls are written with the last, when none of them can turn out to be text any more."""
        match event:
            case Started():
                yield self._chunk({"role": "assistant", "content": ""})
            case TextDelta():
                before, after = self._text_chunk
                yield before + json.dumps(event.text, ensure_ascii=False).encode() + after
            case Finished():
                if calls := self._tool_calls(reply.reply()):
                    indexed = [{"index": index, **call} for index, call in enumerate(calls)]
                    yield self._chunk({"tool_calls": indexed})
                yield self._chunk({}, event.reason)
                if self._include_usage:
                    yield self._event({"choices": [], "usage": _usage(reply.usage)})
                yield b"data: [DONE]\n\n"
            case ToolCallDelta() | UsageReport():
                pass
            case ReasoningDelta() | LogprobsDelta() | MetadataReport():  # the engine has none
                pass
            case _:
                assert_never(event)

    def error_chunk(self, error: bytes) -> bytes:
        """Write an error in the middle of a stream, as vLLM does; `error` is the body of an error response."""
        return b"data: " + error + b"\n\n"

    def _tool_calls(self, reply: Reply) -> list[dict[str, Any]]:
        return [
            {
                "id": call.id or f"call_{secrets.token_hex(8)}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in reply.tool_calls[: self._max_tool_calls]
        ]

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return self._event({"choices": [choice], **usage})

    def _event(self, fields: dict[str, Any]) -> bytes:
        chunk = {**self._head, "object": "chat.completion.chunk", **fields}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


def error_body(message: str, kind: str, code: str | None = None) -> bytes:
    """Write the body of an error response."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode()


def models_body(names: tuple[str, ...], created: int) -> dict[str, Any]:
    """Write the list of models."""
    return {"object": "list", "data": [model_body(name, created) for name in names]}


def model_body(name: str, created: int) -> dict[str, Any]:
    """Write one model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "meta"}


def _usage(usage: Usage) -> dict[str, Any]:
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens or 0},
    }

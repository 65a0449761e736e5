"""Ollama's `/api/chat` and `/api/generate`, from the server's side: requests read, replies and NDJSON lines written.

Fields: https://docs.ollama.com/api.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, assert_never

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
from llama_vision.core.messages import Message, Part, Text, ToolCall, ToolResult
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool
from llama_vision.core.usage import Usage
from llama_vision.images import image_from_base64
from llama_vision.serve.requests import UNLIMITED_TOKENS, Ignored, Refusing, ServedRequest, given, refuse

_NANOSECONDS = 1_000_000_000


class _Options(Refusing):
    """The options. Those of the hardware and of Ollama's own memory are ignored: the engine has its own."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: str | list[str] | None = None
    # Only the value that changes nothing.
    mirostat: Literal[0] | None = None
    tfs_z: Literal[1] | None = None
    typical_p: Literal[1] | None = None
    repeat_last_n: Literal[-1] | None = None  # penalties look at the whole sequence
    # Without effect on the reply.
    num_ctx: JsonValue = None
    num_keep: JsonValue = None
    num_batch: JsonValue = None
    num_gpu: JsonValue = None
    num_thread: JsonValue = None
    main_gpu: JsonValue = None
    low_vram: JsonValue = None
    f16_kv: JsonValue = None
    numa: JsonValue = None
    use_mmap: JsonValue = None
    use_mlock: JsonValue = None
    mirostat_tau: JsonValue = None
    mirostat_eta: JsonValue = None
    penalize_newline: JsonValue = None

    def sampling(self) -> SamplingParams:
        num_predict = self.num_predict
        return SamplingParams(
            max_tokens=num_predict if num_predict and num_predict > 0 else UNLIMITED_TOKENS,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k or None,
            min_p=self.min_p or None,
            seed=self.seed,
            repetition_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty or None,
            presence_penalty=self.presence_penalty or None,
        )


class _Request(Refusing):
    model: str
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: _Options | None = None
    think: Literal[False] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    keep_alive: JsonValue = None  # the model stays loaded as long as the server runs

    def _served(self, messages: list[Message], tools: tuple[Tool, ...] = ()) -> ServedRequest:
        options = self.options or _Options()
        stop = options.stop or ()
        response_format = None
        if isinstance(self.format, dict):
            response_format = ResponseFormat("json_schema", schema=self.format)
        elif self.format:
            response_format = ResponseFormat("json_object")
        chat = ChatRequest(
            model=self.model,
            messages=tuple(messages),
            tools=tools,
            response_format=response_format,
            sampling=options.sampling(),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        )
        return ServedRequest(chat, stream=self.stream is not False)


class _Call(Ignored):
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])


class _ToolCall(Ignored):
    id: str | None = None
    function: _Call


class _Function(Ignored):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(Ignored):
    type: Literal["function"] = "function"
    function: _Function


class _Message(Ignored):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: list[str] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


class OllamaChatRequest(_Request):
    """The body of a request to `/api/chat`. Without messages it only loads the model."""

    messages: list[_Message] = Field(default_factory=list[_Message])
    tools: list[_Tool] | None = None

    def to_request(self) -> ServedRequest | None:
        """Convert it; None where there is nothing to answer.

        Raises:
            ImageError: An image can't be read.
            InvalidRequestError: Images are in a message that can't have them.
        """
        if not self.messages:
            return None
        tools = tuple(
            Tool(
                tool.function.name,
                tool.function.description or "",
                **given(parameters=tool.function.parameters),
            )
            for tool in self.tools or ()
        )
        return self._served(_to_messages(self.messages), tools)


def _to_messages(messages: list[_Message]) -> list[Message]:
    """Convert messages. Ollama's calls and results have no ids, so a result belongs to the first open call of its tool."""
    converted: list[Message] = []
    open_calls: list[ToolCall] = []
    for position, message in enumerate(messages):
        parts: list[Part] = [image_from_base64(_without_prefix(image)) for image in message.images or ()]
        if parts and message.role not in ("user", "tool"):
            raise refuse(f"messages.{position}.images: only user and tool messages can have images")
        if message.content:
            parts.append(Text(message.content))
        if message.role == "tool":
            call_id = message.tool_call_id or _take_open_call(open_calls, message.tool_name or message.name)
            parts = [
                ToolResult(
                    call_id, tuple(part for part in parts if not isinstance(part, ToolCall | ToolResult))
                )
            ]
        for index, call in enumerate(message.tool_calls or ()):
            call_id = call.id or f"call_{position}_{index}"
            tool_call = ToolCall(call_id, call.function.name, json.dumps(call.function.arguments))
            parts.append(tool_call)
            open_calls.append(tool_call)
        converted.append(Message(message.role, tuple(parts) or (Text(""),)))
    return converted


def _without_prefix(image: str) -> str:
    """Take off what makes base64 text a data URL: some clients send one."""
    return image.partition(",")[2] if image.startswith("data:") else image


def _take_open_call(open_calls: list[ToolCall], name: str | None) -> str:
    for call in open_calls:
        if name in (None, call.name):
            open_calls.remove(call)
            return call.id or ""
    return "call_0"


class OllamaGenerateRequest(_Request):
    """The body of a request to `/api/generate`. Without a prompt it only loads the model."""

    prompt: str = ""
    system: str | None = None
    images: list[str] | None = None
    # Only the value that changes nothing: the engine has no raw prompts and no templates of others.
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    raw: Literal[False] | None = None
    context: list[int] = Field(default_factory=list[int], max_length=0)

    def to_request(self) -> ServedRequest | None:
        """Convert it; None where there is nothing to answer.

        Raises:
            ImageError: An image can't be read.
        """
        if not self.prompt and not self.images:
            return None
        images = [image_from_base64(_without_prefix(image)) for image in self.images or ()]
        messages = [Message("user", (*images, Text(self.prompt)))]
        if self.system:
            messages.insert(0, Message("system", (Text(self.system),)))
        return self._served(messages)


class OllamaWriter:
    """Writes one reply, whole or as the lines of a stream."""

    media_type = "application/x-ndjson"

    def __init__(self, model: str, content: Callable[[Reply], dict[str, Any]]) -> None:
        """Begin a reply.

        Args:
            model: The name that the client asked for.
            content: Writes text and tool calls: `chat_content` or `generate_content`.
        """
        self._model = model
        self._content = content
        self._start = time.monotonic_ns()
        self._first_token: int | None = None

    def whole(self, reply: Reply) -> bytes:
        """Write the body of a whole reply."""
        return self._line({**self._content(reply), **self._end(reply.finish_reason or "stop", reply.usage)})

    def chunks(self, event: Event, reply: ReplyBuilder) -> Iterator[bytes]:
        """Write the next event. Tool calls are written with the last, when none of them can turn out to be text any more."""
        match event:
            case TextDelta():
                self._first_token = self._first_token or time.monotonic_ns()
                yield self._line({**self._content(Reply(event.text)), "done": False})
            case Finished():
                if calls := reply.tool_calls:
                    yield self._line({**self._content(Reply(tool_calls=calls)), "done": False})
                yield self._line({**self._content(Reply()), **self._end(event.reason, reply.usage)})
            case Started() | ToolCallDelta() | UsageReport():
                pass
            case ReasoningDelta() | LogprobsDelta() | MetadataReport():  # the engine has none
                pass
            case _:
                assert_never(event)

    def error_chunk(self, error: bytes) -> bytes:
        """Write an error in the middle of a stream; `error` is the body of an error response."""
        return error + b"\n"

    def _line(self, fields: dict[str, Any]) -> bytes:
        line = {"model": self._model, "created_at": _timestamp(time.time()), **fields}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def _end(self, reason: str, usage: Usage) -> dict[str, Any]:
        end = time.monotonic_ns()
        first = self._first_token or end
        return {
            "done": True,
            "done_reason": "stop" if reason == "tool_calls" else reason,
            "total_duration": end - self._start,
            "load_duration": 0,
            "prompt_eval_count": usage.input_tokens or 0,
            "prompt_eval_duration": first - self._start,
            "eval_count": usage.output_tokens or 0,
            "eval_duration": end - first,
        }


def chat_content(reply: Reply) -> dict[str, Any]:
    """Write text and tool calls as `/api/chat` has them."""
    calls: list[dict[str, Any]] = []
    text = reply.text
    for call in reply.tool_calls:
        try:
            arguments = call.parsed()
        except ValueError:  # the reply was cut off: arguments are an object here, so it can only be text
            text += f"{call.name}({call.arguments}"
            continue
        calls.append({"function": {"index": len(calls), "name": call.name, "arguments": arguments}})
    message: dict[str, Any] = {"role": "assistant", "content": text}
    return {"message": {**message, "tool_calls": calls} if calls else message}


def generate_content(reply: Reply) -> dict[str, Any]:
    """Write text as `/api/generate` has it."""
    return {"response": reply.text}


def error_body(message: str) -> bytes:
    """Write the body of an error response."""
    return json.dumps({"error": message}, ensure_ascii=False).encode()


def tag(name: str, created: float, details: dict[str, Any]) -> dict[str, Any]:
    """Write one model of `/api/tags`."""
    return {
        "name": name,
        "model": name,
        "modified_at": _timestamp(created),
        "size": 0,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": details,
    }


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")

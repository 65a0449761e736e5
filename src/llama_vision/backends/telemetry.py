"""OpenTelemetry: a span and metrics for each call, retries and failover included.

Names, units and meanings are those of the GenAI conventions, https://github.com/open-telemetry/semantic-conventions-genai
(v0.1.0, docs/gen-ai/client-inference.md). Only the API is needed; without an SDK that is set up nothing is wrapped.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self, assert_never
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.environment_variables import OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.trace import SpanKind, Status, StatusCode

from llama_vision.core.backend import Backend
from llama_vision.core.errors import LlamaVisionError, StatusError
from llama_vision.core.events import Event, ReasoningDelta, TextDelta, ToolCallDelta
from llama_vision.core.messages import Document, Image, Part, Text, ToolCall, ToolResult
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.version import __version__

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""With `true` spans hold prompts and replies, without the bytes of images: the variable of OpenTelemetry's own
instrumentations."""

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")
_METRICS = sys.modules[metrics.get_meter_provider.__module__]
_PREFIX = "gen_ai.client.inference."


@cache
def _named_in_environment() -> bool:
    return any(name in os.environ for name in (OTEL_PYTHON_TRACER_PROVIDER, OTEL_PYTHON_METER_PROVIDER))


def is_set_up() -> bool:
    """Whether the app has set an SDK up, or the environment named one when this was first asked."""
    # The public functions look into the environment each time, which takes 4 us of every call.
    providers = (getattr(trace, "_TRACER_PROVIDER", ""), getattr(_METRICS, "_METER_PROVIDER", ""))
    if providers == (None, None) and not _named_in_environment():
        return False
    proxy = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    # The API exports its proxy of metrics under no public name.
    return not (proxy and type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a call goes.

    Attributes:
        provider: The provider's name; of a route the first one's.
        base_url: Its address; None for a model on this machine.
    """

    provider: str
    base_url: str | None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the address."""
        url = urlsplit(self.base_url or "")
        if not url.hostname:
            return {}
        return {
            "server.address": url.hostname,
            "server.port": url.port or (80 if url.scheme == "http" else 443),
        }


class _Instruments:
    """The metrics of a meter provider."""

    def __init__(self) -> None:
        meter = metrics.get_meter("llama_vision", __version__)

        def seconds(name: str, description: str) -> metrics.Histogram:
            return meter.create_histogram(
                _PREFIX + name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS
            )

        def counter(name: str) -> metrics.Counter:
            return meter.create_counter(_PREFIX + name, "{token}", "Tokens, by modality.")

        def tokens(name: str) -> metrics.Histogram:
            return meter.create_histogram(
                _PREFIX + name, "{token}", "Tokens of a call.", explicit_bucket_boundaries_advisory=_TOKENS
            )

        self.duration = seconds("duration", "Duration of a call, its retries included.")
        self.first_chunk = seconds("time_to_first_chunk", "Time to the first chunk of a stream.")
        self.next_chunk = seconds("time_per_output_chunk", "Time between two chunks of a stream.")
        self.input_usage = counter("usage.input_tokens")
        self.output_usage = counter("usage.output_tokens")
        self.cached_usage = counter("usage.cache_read.input_tokens")
        self.reasoning_usage = counter("usage.reasoning.output_tokens")
        self.input_tokens = tokens("operation.input_tokens")
        self.output_tokens = tokens("operation.output_tokens")


@cache
def _instruments(_provider: object) -> _Instruments:
    return _Instruments()


class _Call:
    """One traced call: a context manager around it."""

    def __init__(self, endpoint: Endpoint, request: ChatRequest, *, stream: bool) -> None:
        self._request = request
        self._endpoint = endpoint
        self._captures = os.environ.get(CONTENT_VARIABLE, "").strip().lower() == "true"
        self._instruments = _instruments(metrics.get_meter_provider())
        self._common: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": endpoint.provider,
            "gen_ai.request.model": request.model,
            **endpoint.attributes(),
        }
        self._is_stream = stream
        self._builder = ReplyBuilder()
        self._reply: Reply | None = None
        self._first_chunk: float | None = None
        self._chunk_at = 0.0

    def __enter__(self) -> Self:
        self._started = self._chunk_at = time.perf_counter()
        self._span = trace.get_tracer("llama_vision", __version__).start_span(
            f"chat {self._request.model}",
            kind=SpanKind.CLIENT if self._endpoint.base_url else SpanKind.INTERNAL,
            attributes={**self._common, **_request_attributes(self._request, stream=self._is_stream)},
        )
        self._context = trace.set_span_in_context(self._span)
        if self._captures and self._span.is_recording():
            self._span.set_attributes(_input_content(self._request))
        return self

    @contextlib.contextmanager
    def current(self) -> Generator[None]:
        """Make the span the parent of what happens inside, such as HTTP requests; never around a `yield` of a stream."""
        token = context.attach(self._context)
        try:
            yield
        finally:
            context.detach(token)

    def finish(self, reply: Reply) -> None:
        """Take the whole reply."""
        self._reply = reply

    def add(self, event: Event) -> None:
        """Take the next event of a stream."""
        self._builder.add(event)
        if not isinstance(event, TextDelta | ToolCallDelta | ReasoningDelta):
            return
        now = time.perf_counter()
        if self._first_chunk is None:
            self._first_chunk = now - self._started
            self._instruments.first_chunk.record(self._first_chunk, self._common, self._context)
        else:
            self._instruments.next_chunk.record(now - self._chunk_at, self._common, self._context)
        self._chunk_at = now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        reply = self._reply or self._builder.reply()
        if isinstance(error, LlamaVisionError) and error.partial is not None:
            reply = error.partial
        attributes = _reply_attributes(reply)
        tried = error.tried if isinstance(error, LlamaVisionError) else reply.metadata.get("tried", ())
        if tried:
            attributes["llama_vision.tried"] = [f"{entry['provider']}: {entry['error']}" for entry in tried]
        if self._first_chunk is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = self._first_chunk
        common = self._common
        answered = reply.metadata.get("provider")
        if answered is not None and answered != self._endpoint.provider:
            # Another one took over, at another address.
            common = {name: value for name, value in common.items() if not name.startswith("server.")}
            attributes["gen_ai.provider.name"] = common["gen_ai.provider.name"] = answered
        if reply.model:
            common = {**common, "gen_ai.response.model": reply.model}
        if error is not None:
            attributes.setdefault("gen_ai.response.finish_reasons", ["error"])
        if error is not None and not isinstance(error, GeneratorExit):
            attributes["error.type"] = _error_type(error)
            common = {**common, "error.type": attributes["error.type"]}
            # Errors of this package hold no key; those of others may hold anything.
            described = str(error) if isinstance(error, LlamaVisionError) else type(error).__name__
            self._span.set_status(Status(StatusCode.ERROR, described))
        if self._captures and self._span.is_recording():
            attributes["gen_ai.output.messages"] = json.dumps([_output_message(reply)], ensure_ascii=False)
        self._span.set_attributes(attributes)
        self._record(reply.usage, common)
        self._span.end()

    def _record(self, usage: Usage, common: dict[str, Any]) -> None:
        instruments, where = self._instruments, self._context
        instruments.duration.record(time.perf_counter() - self._started, common, where)
        usage_attributes = {name: value for name, value in common.items() if name != "error.type"}

        def count(counter: metrics.Counter, tokens: int | None, modality: str = "unknown") -> None:
            if tokens:
                counter.add(tokens, {**usage_attributes, "gen_ai.token.modality": modality}, where)

        if usage.input_tokens is not None:
            instruments.input_tokens.record(usage.input_tokens, usage_attributes, where)
            images = usage.input_token_details.get("image_tokens")
            if images is None:
                count(instruments.input_usage, usage.input_tokens)
            else:
                count(instruments.input_usage, images, "image")
                count(instruments.input_usage, usage.input_tokens - images, "text")
        if usage.output_tokens is not None:
            instruments.output_tokens.record(usage.output_tokens, usage_attributes, where)
            count(instruments.output_usage, usage.output_tokens, "text")
        count(instruments.cached_usage, usage.cached_input_tokens)
        count(instruments.reasoning_usage, usage.output_token_details.get("reasoning_tokens"), "text")


class TracedBackend:
    """Another backend with a span and metrics for each call.

    Attributes:
        wrapped: The other backend.
    """

    def __init__(self, backend: Backend, endpoint: Endpoint) -> None:
        """Trace the calls of `backend`, which go to `endpoint`."""
        self.wrapped = backend
        self._endpoint = endpoint

    def __repr__(self) -> str:
        return f"TracedBackend({self.wrapped!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        with _Call(self._endpoint, request, stream=False) as call, call.current():
            reply = self.wrapped.complete(request)
            call.finish(reply)
            return reply

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        with _Call(self._endpoint, request, stream=False) as call, call.current():
            reply = await self.wrapped.acomplete(request)
            call.finish(reply)
            return reply

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer as a stream of events; see `Backend.stream`."""
        with (
            _Call(self._endpoint, request, stream=True) as call,
            contextlib.closing(self.wrapped.stream(request)) as events,
        ):
            while True:
                with call.current():
                    event = next(events, None)
                if event is None:
                    return
                call.add(event)
                yield event

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer as a stream of events, without blocking the event loop; see `Backend.astream`."""
        with _Call(self._endpoint, request, stream=True) as call:
            async with contextlib.aclosing(self.wrapped.astream(request)) as events:
                while True:
                    with call.current():
                        event = await anext(events, None)
                    if event is None:
                        return
                    call.add(event)
                    yield event

    def close(self) -> None:
        """Close the backend."""
        self.wrapped.close()

    async def aclose(self) -> None:
        """Close the backend."""
        await self.wrapped.aclose()


def _request_attributes(request: ChatRequest, *, stream: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        f"gen_ai.request.{name}": value
        for name in _SAMPLING
        if (value := getattr(request.sampling, name)) is not None
    }
    if stream:
        attributes["gen_ai.request.stream"] = True
    if request.stop:
        attributes["gen_ai.request.stop_sequences"] = list(request.stop)
    if request.response_format is not None:
        attributes["gen_ai.output.type"] = "text" if request.response_format.type == "text" else "json"
    return attributes


def _reply_attributes(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    attributes = {
        "gen_ai.response.model": reply.model,
        "gen_ai.response.id": reply.id,
        "gen_ai.response.finish_reasons": [reply.finish_reason] if reply.finish_reason else None,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.image.input_tokens": usage.input_token_details.get("image_tokens"),
        "gen_ai.usage.reasoning.output_tokens": usage.output_token_details.get("reasoning_tokens"),
        "llama_vision.cost_usd": usage.cost_usd,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _error_type(error: BaseException) -> str:
    """Return the HTTP status, else the name of the class."""
    if isinstance(error, StatusError) and error.status_code:
        return str(error.status_code)
    return type(error).__name__


def _input_content(request: ChatRequest) -> dict[str, str]:
    """Return prompt and tools as the conventions' JSON. System messages are among the others, as on the wire."""
    messages = [
        {"role": message.role, "parts": list(map(_part, message.parts))} for message in request.messages
    ]
    content: dict[str, Any] = {"gen_ai.input.messages": messages}
    if request.tools:
        content["gen_ai.tool.definitions"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            }
            for tool in request.tools
        ]
    return {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()}


def _output_message(reply: Reply) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if reply.reasoning:
        parts.append({"type": "reasoning", "content": reply.reasoning})
    if reply.text:
        parts.append({"type": "text", "content": reply.text})
    parts += map(_part, reply.tool_calls)
    return {"role": "assistant", "parts": parts, "finish_reason": reply.finish_reason or "error"}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "content": part.text}
        # Neither bytes nor an address, which may hold a token: parts of our own kinds, as the schema allows.
        case Image():
            return {"type": "image", "mime_type": part.media_type}
        case Document():
            return {"type": "document", "name": part.name, "pages": part.pages}
        case ToolCall():
            call = {"type": "tool_call", "name": part.name, "arguments": _arguments(part)}
            return call if part.id is None else {**call, "id": part.id}
        case ToolResult():
            return {
                "type": "tool_call_response",
                "id": part.call_id,
                "response": list(map(_part, part.parts)),
            }
        case _:
            assert_never(part)


def _arguments(call: ToolCall) -> Any:
    """Return the arguments as an object; as the model wrote them where they are none."""
    try:
        return call.parsed()
    except ValueError:
        return call.arguments

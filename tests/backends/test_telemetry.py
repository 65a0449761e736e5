"""What OpenTelemetry sees of a call: one span over all retries, the conventions' names, and metrics."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `test` has it")
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from llama_vision.backends import create_backend, telemetry
from llama_vision.backends.circuit_breaker import close_breakers
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.messages import Image, Message, Text
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
from tests.backends.routes import record_of, route_backend
from tests.backends.telemetry_seen import set_up
from tests.emulator import Emulator, chunks, completion, event_stream, refusal
from tests.emulator.asking import MODEL, STREAMED_WAYS, WAYS, aask, ask, question

TOKENS = "gen_ai.client.inference.usage.input_tokens"


@pytest.fixture(scope="module")
def servers():
    with Emulator() as first, Emulator() as second:
        yield first, second


@pytest.fixture
def server(servers):
    close_breakers()
    for emulator in servers:
        emulator.reset()
        emulator.api_key = None
    return servers[0]


@pytest.fixture
def seen(monkeypatch):
    seen = set_up(monkeypatch)
    yield seen
    seen.meters.shutdown()


@pytest.mark.parametrize("way", WAYS)
def test_a_call_is_one_span_with_the_names_of_the_conventions(server, seen, way):
    server.always(completion("One two three"))
    request = replace(
        question(),
        sampling=SamplingParams(max_tokens=50, temperature=0.5, seed=7),
        stop=("END",),
        response_format=ResponseFormat("json_object"),
    )
    reply = ask(create_backend(record_of(server, "deepinfra")), way, request)
    span = seen.span()
    assert span.name == f"chat {MODEL}"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    attributes = dict(span.attributes)
    streamed = way in STREAMED_WAYS
    if streamed:
        assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < 20
        assert attributes.pop("gen_ai.request.stream") is True
    assert attributes.pop("llama_vision.cost_usd") == reply.usage.cost_usd
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "deepinfra",
        "gen_ai.request.model": MODEL,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.output.type": "json",
        "gen_ai.response.model": reply.model,
        "gen_ai.response.id": reply.id,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": reply.usage.input_tokens,
        "gen_ai.usage.output_tokens": reply.usage.output_tokens,
        **(
            {}
            if reply.usage.cached_input_tokens is None
            else {"gen_ai.usage.cache_read.input_tokens": reply.usage.cached_input_tokens}
        ),
    }
    points = seen.metrics()
    assert points["gen_ai.client.inference.duration"][0].count == 1
    assert points["gen_ai.client.inference.operation.output_tokens"][0].sum == reply.usage.output_tokens
    assert points[TOKENS][0].value == reply.usage.input_tokens
    assert points[TOKENS][0].attributes["gen_ai.token.modality"] == "unknown"
    assert ("gen_ai.client.inference.time_to_first_chunk" in points) == streamed
    assert ("gen_ai.client.inference.time_per_output_chunk" in points) == streamed


@pytest.mark.parametrize("way", WAYS)
def test_retries_are_within_the_span_and_an_error_is_its_status(server, seen, way):
    server.always(refusal(500, retry_after=0.01))
    with pytest.raises(LlamaVisionError):
        ask(create_backend(record_of(server, "a"), max_retries=2), way)
    assert len(server.requests) == 3
    span = seen.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "500"
    (point,) = seen.metrics()["gen_ai.client.inference.duration"]
    assert point.attributes["error.type"] == "500"


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stream_that_breaks_off_tells_what_had_arrived(server, seen, way):
    server.always(event_stream(*list(chunks(completion("One two three")))[:2]))
    with pytest.raises(LlamaVisionError):
        ask(create_backend(record_of(server, "a"), max_retries=0), way)
    assert seen.span().attributes["error.type"] == "TruncatedStreamError"
    assert "gen_ai.response.time_to_first_chunk" in seen.span().attributes


@pytest.mark.parametrize("way", WAYS)
def test_failover_is_one_span_that_names_who_answered(servers, server, seen, way):
    server.always(refusal(429))
    servers[1].always(completion("Hi"))
    ask(route_backend(servers), way)
    attributes = seen.span().attributes
    assert attributes["gen_ai.provider.name"] == "second"
    assert attributes["llama_vision.tried"] == ("first: RateLimitError",)
    (point,) = seen.metrics()["gen_ai.client.inference.duration"]
    assert point.attributes["gen_ai.provider.name"] == "second"
    assert "server.address" not in point.attributes


def test_the_local_model_is_internal(seen):
    request = ChatRequest("tiny", (Message("user", (Text("Say hi"),)),))
    reply = ask(create_backend(find_provider("local")), "stream", request)
    span = seen.span()
    assert span.kind is SpanKind.INTERNAL
    assert span.attributes["gen_ai.usage.output_tokens"] == reply.usage.output_tokens
    assert "server.address" not in span.attributes


def test_image_tokens_are_counted_as_such(server, seen):
    whole = completion("Hi")
    whole["usage"]["prompt_tokens_details"] = {"image_tokens": 4}
    server.always(whole)
    ask(create_backend(record_of(server, "a")), "complete")
    assert seen.span().attributes["gen_ai.usage.image.input_tokens"] == 4
    by_modality = {point.attributes["gen_ai.token.modality"]: point.value for point in seen.metrics()[TOKENS]}
    assert by_modality == {"image": 4, "text": whole["usage"]["prompt_tokens"] - 4}


@pytest.mark.parametrize("way", WAYS)
def test_content_is_told_only_if_asked_for_and_no_image_ever(server, seen, way, monkeypatch):
    server.always(completion("A circle."))
    image = Image(SAMPLE_IMAGES["circle"].read_bytes(), media_type="image/png")
    messages = (Message("system", (Text("Be brief."),)), Message("user", (image, Text("What is it?"))))
    monkeypatch.setenv(telemetry.CONTENT_VARIABLE, "true")
    ask(create_backend(record_of(server, "a")), way, ChatRequest(MODEL, messages))
    attributes = seen.span().attributes
    # "Instructions that are part of the chat history SHOULD be recorded in gen_ai.input.messages".
    assert "gen_ai.system_instructions" not in attributes
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {
            "role": "user",
            "parts": [
                {"type": "image", "mime_type": "image/png"},
                {"type": "text", "content": "What is it?"},
            ],
        },
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "A circle."}],
            "finish_reason": "stop",
        }
    ]


@pytest.mark.parametrize("way", WAYS)
def test_the_span_is_a_child_of_what_surrounds_the_call(server, seen, way):
    server.always(completion("Hi"))
    tracer = trace.get_tracer("app")

    async def within():
        with tracer.start_as_current_span("app"):
            await aask(backend, way)

    backend = create_backend(record_of(server, "a"))
    if way.startswith("a"):
        asyncio.run(within())
    else:
        with tracer.start_as_current_span("app"):
            ask(backend, way)
    child, parent = seen.spans()
    assert child.parent.span_id == parent.context.span_id


def test_a_stream_that_is_left_ends_its_span_and_leaks_no_context(server, seen):
    server.always(completion("One two three"))
    events = create_backend(record_of(server, "a")).stream(question())
    next(events)
    assert not trace.get_current_span().get_span_context().is_valid
    events.close()
    assert "error.type" not in seen.span().attributes


def test_without_an_sdk_nothing_is_wrapped():
    assert "Traced" not in repr(create_backend(find_provider("deepinfra")))


def test_without_the_api_calls_work_and_nothing_of_it_is_loaded():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from llama_vision.backends import create_backend\n"
        "from llama_vision.providers import find_provider\n"
        "print(create_backend(find_provider('deepinfra')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HttpBackend(")

"""Everything that is told to OpenTelemetry, held against the GenAI conventions: names, types, units and JSON schemas."""

import json

import jsonschema
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `test` has it")
from opentelemetry.trace import SpanKind, StatusCode

from llama_vision.backends import create_backend, telemetry
from llama_vision.backends.circuit_breaker import close_breakers
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
from tests.backends.routes import record_of, route_backend
from tests.backends.telemetry_conventions import (
    ATTRIBUTES,
    METRICS,
    OUTPUT_TYPES,
    OWN_ATTRIBUTES,
    REQUIRED,
    SCHEMAS,
)
from tests.backends.telemetry_seen import set_up
from tests.emulator import Emulator, chunks, completion, event_stream, refusal
from tests.emulator.asking import MODEL, STREAMED_WAYS, WAYS, ask

TOOL = Tool(
    "get_weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}}
)
IMAGE = Image(SAMPLE_IMAGES["circle"].read_bytes(), media_type="image/png")
FULL = ChatRequest(
    MODEL,
    (
        Message("system", (Text("Be brief."),)),
        Message("user", (IMAGE, Text("What is it?"))),
        Message("assistant", (ToolCall("call_1", "get_weather", '{"city": "Paris"}'),)),
        Message("tool", (ToolResult("call_1", (Text("Rain"),)),)),
        Message("user", (Text("And now?"),)),
    ),
    tools=(TOOL,),
    sampling=SamplingParams(
        max_tokens=50, temperature=1, top_p=0.5, top_k=4, seed=7, frequency_penalty=0.5, presence_penalty=1
    ),
    stop=("END",),
    response_format=ResponseFormat("json_object"),
)


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
    monkeypatch.setenv(telemetry.CONTENT_VARIABLE, "true")
    seen = set_up(monkeypatch)
    yield seen
    seen.meters.shutdown()


def check_span(span, *, failed=False, local=False):
    """Hold a span against the conventions."""
    attributes = dict(span.attributes)
    types = ATTRIBUTES | OWN_ATTRIBUTES
    assert attributes.keys() <= types.keys(), "an attribute of no name that is known"
    assert attributes.keys() >= REQUIRED
    for name, value in attributes.items():
        assert isinstance(value, types[name]), name
        assert types[name] is bool or not isinstance(value, bool), name
    assert span.name == f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}"
    assert attributes["gen_ai.operation.name"] == "chat"
    assert span.kind is (SpanKind.INTERNAL if local else SpanKind.CLIENT)
    assert attributes.get("gen_ai.output.type", "text") in OUTPUT_TYPES
    assert ("server.port" in attributes) == ("server.address" in attributes)
    assert ("error.type" in attributes) == failed == (span.status.status_code is StatusCode.ERROR)
    assert all(isinstance(reason, str) for reason in attributes["gen_ai.response.finish_reasons"])
    assert {"gen_ai.input.messages", "gen_ai.output.messages"} <= attributes.keys()
    for name in SCHEMAS.keys() & attributes.keys():
        jsonschema.validate(json.loads(attributes[name]), SCHEMAS[name])
    return attributes


def check_metrics(seen, *, failed=False):
    """Hold all points against the conventions."""
    instruments = seen.instruments()
    assert "gen_ai.client.inference.duration" in {instrument.name for instrument in instruments}
    for instrument in instruments:
        unit, allowed = METRICS[instrument.name]
        assert instrument.unit == unit
        for point in instrument.data.data_points:
            assert REQUIRED <= point.attributes.keys() <= allowed, instrument.name
            if instrument.name == "gen_ai.client.inference.duration":
                assert ("error.type" in point.attributes) == failed
            if "gen_ai.token.modality" in allowed:
                assert point.attributes["gen_ai.token.modality"] in ("text", "image", "unknown")


@pytest.mark.parametrize("way", WAYS)
def test_a_call_with_everything(server, seen, way):
    reply = completion(calls=[("get_weather", {"city": "Rome"})])
    reply["usage"] |= {
        "prompt_tokens_details": {"image_tokens": 4, "cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    server.always(reply)
    ask(create_backend(record_of(server, "deepinfra")), way, FULL)
    attributes = check_span(seen.span())
    check_metrics(seen)
    expected = ATTRIBUTES.keys() - {"error.type", "gen_ai.system_instructions"}
    if way not in STREAMED_WAYS:
        expected -= {"gen_ai.request.stream", "gen_ai.response.time_to_first_chunk"}
    assert attributes.keys() - OWN_ATTRIBUTES.keys() == expected
    (tool,) = json.loads(attributes["gen_ai.tool.definitions"])
    assert (tool["name"], tool["parameters"]) == ("get_weather", TOOL.parameters)
    roles = [message["role"] for message in json.loads(attributes["gen_ai.input.messages"])]
    assert roles == ["system", "user", "assistant", "tool", "user"]
    (answer,) = json.loads(attributes["gen_ai.output.messages"])
    assert answer["parts"][0]["arguments"] == {"city": "Rome"}
    assert not any(IMAGE.data[:40].hex() in str(value) for value in attributes.values())


@pytest.mark.parametrize("way", WAYS)
def test_arguments_that_are_no_object_are_told_as_written(server, seen, way):
    reply = completion(calls=[("get_weather", {})])
    reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = '{"city": "Ro'
    reply["choices"][0]["finish_reason"] = "length"
    server.always(reply)
    ask(create_backend(record_of(server, "deepinfra")), way, FULL)
    (answer,) = json.loads(check_span(seen.span())["gen_ai.output.messages"])
    assert answer["parts"][0]["arguments"] == '{"city": "Ro'


@pytest.mark.parametrize("way", WAYS)
def test_an_error(server, seen, way):
    server.always(refusal(400))
    with pytest.raises(LlamaVisionError):
        ask(create_backend(record_of(server, "a")), way, FULL)
    attributes = check_span(seen.span(), failed=True)
    assert attributes["error.type"] == "400"
    # "If a finish reason was expected but not received, ... instrumentations SHOULD report `error`".
    assert attributes["gen_ai.response.finish_reasons"] == ("error",)
    check_metrics(seen, failed=True)


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stream_that_breaks_off(server, seen, way):
    server.always(event_stream(*list(chunks(completion("One two three")))[:2]))
    with pytest.raises(LlamaVisionError):
        ask(create_backend(record_of(server, "a"), max_retries=0), way)
    assert check_span(seen.span(), failed=True)["gen_ai.response.finish_reasons"] == ("error",)
    check_metrics(seen, failed=True)


def test_a_stream_that_is_left(server, seen):
    server.always(completion("One two three"))
    events = create_backend(record_of(server, "a")).stream(FULL)
    next(events)
    events.close()
    assert check_span(seen.span())["gen_ai.response.finish_reasons"] == ("error",)


@pytest.mark.parametrize("way", WAYS)
def test_a_retry(server, seen, way):
    server.script(refusal(500, retry_after=0.01), completion("Hi"))
    ask(create_backend(record_of(server, "a")), way)
    assert check_span(seen.span())["gen_ai.response.finish_reasons"] == ("stop",)
    check_metrics(seen)


@pytest.mark.parametrize("way", WAYS)
def test_a_failover(servers, server, seen, way):
    server.always(refusal(429))
    servers[1].always(completion("Hi"))
    ask(route_backend(servers), way)
    assert check_span(seen.span())["gen_ai.provider.name"] == "second"
    check_metrics(seen)


@pytest.mark.parametrize("way", WAYS)
def test_the_local_model(seen, way):
    ask(
        create_backend(find_provider("local")),
        way,
        ChatRequest("tiny", (Message("user", (Text("Say hi"),)),)),
    )
    check_span(seen.span(), local=True)
    check_metrics(seen)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gen_ai.input.messages", [{"role": "user"}]),
        ("gen_ai.input.messages", [{"role": "user", "parts": [{"type": "text"}]}]),
        ("gen_ai.input.messages", [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "1"}]}]),
        (
            "gen_ai.output.messages",
            [{"role": "assistant", "parts": [{"type": "tool_call", "id": None, "name": "a"}]}],
        ),
        ("gen_ai.output.messages", [{"role": "assistant", "parts": [{"content": "no type"}]}]),
        ("gen_ai.system_instructions", [{"type": "text", "content": 1}]),
        ("gen_ai.tool.definitions", [{"type": "function"}]),
    ],
)
def test_the_schemas_refuse_what_the_conventions_do(name, wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMAS[name])

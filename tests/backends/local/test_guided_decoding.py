"""Guided decoding with the tiny model's real weights: every reply fits, and unrestricted replies are unchanged."""

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from pydantic import BaseModel, Field

from llama_vision import (
    ChatRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    Text,
    Tool,
    ToolChoice,
    image_from_any,
)
from llama_vision.backends import create_backend
from llama_vision.core.events import Finished, Started
from llama_vision.core.reply import Reply
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.fitting import fits

REQUIRED = ToolChoice("required")

# Its own limits keep the answers of a small model at a temperature of 1 inside `max_tokens`.
SHORT = {"type": "string", "maxLength": 12}
TOOLS = (
    Tool(
        "get_weather",
        "Get the weather",
        {
            "type": "object",
            "properties": {"city": SHORT, "unit": {"enum": ["C", "F"]}},
            "required": ["city"],
        },
    ),
    Tool("now", "Tell the time"),
    Tool(
        "book",
        "Book a table",
        {
            "type": "object",
            "$defs": {"guest": {"type": "object", "properties": {"name": SHORT}, "required": ["name"]}},
            "properties": {
                "guests": {"type": "array", "items": {"$ref": "#/$defs/guest"}, "minItems": 1, "maxItems": 3},
                "outside": {"type": "boolean"},
            },
            "required": ["guests", "outside"],
        },
    ),
)


class Part(BaseModel):
    """A part of something."""

    label: str = Field(max_length=10)
    amount: int = Field(ge=0, le=99)


class Thing(BaseModel):
    """Something with parts."""

    title: str = Field(max_length=10)
    parts: list[Part] = Field(max_length=3)
    inner: Part
    heavy: bool | None = None


SCHEMAS = {
    "pydantic": Thing.model_json_schema(),
    "enum": {"type": "object", "properties": {"size": {"enum": ["small", "large"]}}, "required": ["size"]},
    "array": {"type": "array", "items": SHORT, "minItems": 2, "maxItems": 2},
    "nested": {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"anyOf": [SHORT, {"type": "null"}]}}}},
        "required": ["a"],
    },
}


@pytest.fixture
def backend():
    return create_backend(find_provider("local"))


def ask(text, *images, **options):
    parts = (*(image_from_any(image) for image in images), Text(text))
    return ChatRequest("tiny", (Message("user", parts),), **options)


def drawn_question(seed):
    chance = random.Random(seed)
    thing = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=5)).title()
    return chance.choice(
        [
            f"What is the weather for {thing}?",
            f"Book a table for {thing} and {chance.choice(['Bob', 'Ada'])}.",
            f"Return JSON with name {thing} and number {chance.randint(0, 999)}.",
            f"Say: {thing}",
            "What time is it?",
            "Describe the image.",
        ]
    )


def hot(seed, max_tokens=600):
    return SamplingParams(max_tokens=max_tokens, temperature=1.0, seed=seed)


def output_text(reply):
    """The text that the model wrote, of which the backend has parsed a call where it could."""
    calls = [
        f'{{"name": {json.dumps(call.name)}, "parameters": {call.arguments}}}' for call in reply.tool_calls
    ]
    return reply.text + "; ".join(calls)


def comparable(reply):
    """All of a reply but the generated ids of its calls and the cached tokens of its prompt."""
    return output_text(reply), reply.finish_reason, reply.usage.input_tokens, reply.usage.output_tokens


def calls_one_of(text, tools):
    call = json.loads(text)
    tool = next(tool for tool in tools if tool.name == call["name"])
    return list(call) == ["name", "parameters"] and fits(call["parameters"], tool.parameters)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.slow_beyond(6)
def test_a_required_call_is_always_one(backend, seed):
    reply = backend.complete(ask(drawn_question(seed), tools=TOOLS, tool_choice=REQUIRED, sampling=hot(seed)))
    assert reply.finish_reason != "length"
    assert calls_one_of(output_text(reply), TOOLS)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.slow_beyond(4)
def test_a_named_call_is_of_that_tool(backend, tool, seed):
    choice = ToolChoice("named", tool.name)
    reply = backend.complete(ask(drawn_question(seed), tools=TOOLS, tool_choice=choice, sampling=hot(seed)))
    assert calls_one_of(output_text(reply), [tool])


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.slow_beyond(8)
def test_a_reply_fits_its_schema(backend, schema, seed):
    form = ResponseFormat("json_schema", schema=schema)
    reply = backend.complete(ask(drawn_question(seed), response_format=form, sampling=hot(seed)))
    assert reply.finish_reason == "stop"
    assert fits(json.loads(reply.text), schema)


@pytest.mark.parametrize("seed", range(15))
def test_any_object(backend, seed):
    form = ResponseFormat("json_object")
    sampling = replace(hot(seed), repetition_penalty=1.2)  # no grammar ends what says the same over and over
    reply = backend.complete(ask(drawn_question(seed), response_format=form, sampling=sampling))
    assert isinstance(json.loads(reply.text), dict)


def test_an_image_is_described_within_a_schema(backend):
    schema = {
        "type": "object",
        "properties": {"color": {"enum": ["blue", "green", "orange", "pink", "purple", "red", "yellow", "black"]}},
        "required": ["color"],
    }  # fmt: skip
    form = ResponseFormat("json_schema", schema=schema)
    right = 0
    for seed in range(20):
        image, color, shape = one_shape(seed)
        reply = backend.complete(ask(f"What color is the {shape}?", image, response_format=form))
        right += json.loads(reply.text) == {"color": color}
    assert right >= 15


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.slow_beyond(5)
def test_beside_a_schema_a_reply_is_a_call_or_fits(backend, seed):
    form = ResponseFormat("json_schema", schema=SCHEMAS["pydantic"])
    reply = backend.complete(ask(drawn_question(seed), tools=TOOLS, response_format=form, sampling=hot(seed)))
    if output_text(reply).startswith('{"name"'):
        assert calls_one_of(output_text(reply), TOOLS)
    else:
        Thing.model_validate_json(reply.text)


def undecided(seed):
    """At this temperature it begins a call about as often as free text."""
    return ask(
        drawn_question(seed), tools=TOOLS, sampling=SamplingParams(max_tokens=150, temperature=3.0, seed=seed)
    )


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.slow_beyond(8)
def test_what_begins_as_a_call_is_one_and_free_text_is_unchanged(backend, seed):
    guided = backend.complete(undecided(seed))
    unguided = backend.complete(replace(undecided(seed), tool_choice=ToolChoice("none")))
    if not unguided.text.startswith('{"name"'):
        if "\ufffd" in unguided.text:  # invalid UTF-8, which the grammar forbids
            assert guided.text.startswith(unguided.text.partition("\ufffd")[0])
        else:
            assert comparable(guided) == comparable(unguided)
    elif output_text(guided).startswith('{"name"'):
        assert calls_one_of(output_text(guided), TOOLS)
    else:  # the mask may have led to free text
        assert guided.text


@pytest.mark.slow
def test_among_those_were_calls_and_free_text(backend):
    answers = [output_text(backend.complete(undecided(seed))) for seed in range(40)]
    calls = sum(answer.startswith('{"name"') for answer in answers)
    assert 5 <= calls <= 35


@pytest.mark.parametrize("options", [{"tools": TOOLS, "tool_choice": REQUIRED}, {"tools": TOOLS}])
@pytest.mark.slow
def test_streaming_and_async_give_the_same_reply(backend, options):
    for seed in range(8):
        request = ask(drawn_question(seed), sampling=hot(seed), **options)
        whole = backend.complete(request)
        events = list(backend.stream(request))
        assert len(events) > 4
        assert comparable(Reply.from_events(events)) == comparable(whole)
        assert comparable(asyncio.run(backend.acomplete(request))) == comparable(whole)


def test_a_greedy_call(backend):
    cold = SamplingParams(temperature=0)
    reply = backend.complete(
        ask("What is the weather for Paris?", tools=TOOLS, tool_choice=REQUIRED, sampling=cold)
    )
    assert output_text(reply) == '{"name": "get_weather", "parameters": {"city": "Paris"}}'


def test_max_tokens_ends_with_length_also_inside_a_call(backend):
    request = ask("Hi", tools=TOOLS, tool_choice=REQUIRED, sampling=SamplingParams(max_tokens=4))
    reply = backend.complete(request)
    assert (reply.finish_reason, reply.usage.output_tokens) == ("length", 4)
    assert '{"name": "'.startswith(reply.text[:10])


def test_the_last_token_of_the_grammar_is_the_last_of_the_reply(backend):
    request = ask("Hi", tools=(TOOLS[1],), tool_choice=REQUIRED)
    reply = backend.complete(request)
    assert output_text(reply) == '{"name": "now", "parameters": {}}'
    assert reply.finish_reason != "length"
    exactly = SamplingParams(max_tokens=reply.usage.output_tokens)
    again = backend.complete(ask("Hi", tools=(TOOLS[1],), tool_choice=REQUIRED, sampling=exactly))
    assert comparable(again) == comparable(reply)


def test_a_grammar_that_may_go_on_ends_at_the_models_eos_token(backend):
    form = ResponseFormat("json_schema", schema={"type": "integer", "minimum": 0, "maximum": 10**9})
    replies = [
        backend.complete(ask("How many?", response_format=form, sampling=hot(seed))) for seed in range(10)
    ]
    assert all(0 <= int(reply.text) <= 10**9 for reply in replies)
    assert {reply.finish_reason for reply in replies} == {"stop"}


def test_a_stop_string_ends_a_call_too(backend):
    reply = backend.complete(ask("Hi", tools=TOOLS, tool_choice=REQUIRED, stop=('", "param',)))
    assert reply.finish_reason == "stop"
    assert reply.text in {f'{{"name": "{tool.name}' for tool in TOOLS}


ENDLESS = ResponseFormat(
    "json_schema", schema={"type": "array", "items": {"type": "integer"}, "minItems": 1000}
)


def test_closing_a_stream_stops_the_sequence(backend):
    stream = backend.stream(ask("Hi", response_format=ENDLESS, sampling=SamplingParams(max_tokens=1500)))
    assert isinstance(next(stream), Started)
    next(stream)
    stream.close()
    began = time.monotonic()
    assert backend.complete(ask("Say hi")).text == "Hi"
    assert time.monotonic() - began < 1.0


def test_concurrent_requests_with_different_grammars_do_not_mix(backend):
    answers = [""] * 12

    def work(number):
        tool = TOOLS[number % 3]
        choice = ToolChoice("named", tool.name)
        events = backend.stream(ask("Hi", tools=TOOLS, tool_choice=choice, sampling=hot(number)))
        answers[number] = output_text(Reply.from_events(events))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(answers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(calls_one_of(answer, [TOOLS[number % 3]]) for number, answer in enumerate(answers))


def test_an_error_comes_before_the_first_event(backend):
    schema = {"type": "array", "uniqueItems": True}
    began = []
    with pytest.raises(Exception, match="uniqueItems"):
        began.extend(backend.stream(ask("Hi", response_format=ResponseFormat("json_schema", schema=schema))))
    assert not any(isinstance(event, Started | Finished) for event in began)


def in_a_new_process(before, after=""):
    code = f"""
import sys
{before}
from llama_vision import ChatRequest, Message, ResponseFormat, Text, Tool, ToolChoice
from llama_vision.backends import create_backend
from llama_vision.providers import find_provider
backend = create_backend(find_provider("local"))
words = (Message("user", (Text("Say hi"),)),)
print(backend.complete(ChatRequest("tiny", words)).text)
{after}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.slow
def test_an_unrestricted_reply_does_not_import_llguidance():
    assert in_a_new_process("", "print('llguidance' in sys.modules)") == ["Hi", "False"]


@pytest.mark.slow
def test_without_llguidance_only_guided_requests_are_refused():
    free, offered, refused, also_refused = in_a_new_process(
        "sys.modules['llguidance'] = None  # as if it were not installed",
        """
tools = (Tool("now", "Tell the time"),)
reply = backend.complete(ChatRequest("tiny", words, tools=tools))
print(reply.finish_reason, reply.usage.output_tokens > 1)
for options in ({"tools": tools, "tool_choice": ToolChoice("required")}, {"response_format": ResponseFormat("json_object")}):
    try:
        backend.complete(ChatRequest("tiny", words, **options))
    except Exception as error:
        print(type(error).__name__, error)
""",
    )
    assert free == "Hi"
    assert offered.endswith("True")
    for line in (refused, also_refused):
        assert line.startswith("MissingDependencyError")
        assert "pip install 'llama-vision[local]'" in line

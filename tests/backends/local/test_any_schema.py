"""Two hundred schemas, kept to without exception, alone and in a full batch."""

import json

import pytest

from llama_vision import ChatRequest, Message, ResponseFormat, SamplingParams, Text, image_from_any
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.reply import Reply
from tests.drawing import one_shape
from tests.fitting import fits
from tests.schemas import drawn_schema

SCHEMAS = [drawn_schema(seed) for seed in range(200)]


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


def ask(number, form=None):
    """A question, with an image to every second one; sampled, since chance strays further than the likeliest answer."""
    images = [image_from_any(one_shape(number)[0])] * (number % 2)
    return ChatRequest(
        "tiny",
        (Message("user", (*images, Text(f"Return JSON about number {number}."))),),
        sampling=SamplingParams(max_tokens=1500, temperature=1.0, seed=number),
        response_format=form,
    )


def answered(engine, requests):
    heard = [[] for _ in requests]
    waiting = [
        engine.answer_to(request, events.append, lambda: False)
        for request, events in zip(requests, heard, strict=True)
    ]
    while waiting or engine.working:
        room = engine.free
        engine.add_sequences(waiting[:room])
        del waiting[:room]
        engine.step()
    return [Reply.from_events(events) for events in heard]


def test_they_are_of_every_kind():
    told = [json.dumps(schema) for schema in SCHEMAS]
    for kind in ('"$ref"', '"anyOf"', '"enum"', '"const"', '"pattern"', '"array"', '"null"', '"minimum"'):
        assert sum(kind in one for one in told) > 15
    assert len(set(told)) == 200
    assert max(map(len, told)) > 1000


@pytest.mark.parametrize(("slots", "every"), [(16, 1), (1, 10)])
def test_every_answer_is_json_that_fits(loaded, slots, every):
    numbers = range(0, 200, every)
    requests = [ask(number, ResponseFormat("json_schema", schema=SCHEMAS[number])) for number in numbers]
    free = [ask(number) for number in range(50 // every)]
    mixed = [one for pair in zip(requests, free, strict=False) for one in pair] + requests[len(free) :]
    replies = answered(Engine(loaded, LocalSettings(max_batch_size=slots)), mixed)
    kept = [
        (one.response_format.schema, reply)
        for one, reply in zip(mixed, replies, strict=True)
        if one.response_format
    ]
    assert len(kept) == len(requests)
    assert {reply.finish_reason for _, reply in kept} == {"stop"}
    assert [schema for schema, reply in kept if not fits(json.loads(reply.text), schema)] == []

"""Guided decoding with two hundred schemas, alone and in a full batch: every reply fits."""

import json

import pytest

from llama_vision import ChatRequest, Message, ResponseFormat, SamplingParams, Text, image_from_any
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from tests.drawing import one_shape
from tests.fitting import fits
from tests.local_engine import run
from tests.schemas import drawn_schema

SCHEMAS = [drawn_schema(seed) for seed in range(200)]


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


def ask(number, form=None):
    """A question, with an image to every second one; sampled, since samples stray further than greedy replies."""
    images = [image_from_any(one_shape(number)[0])] * (number % 2)
    return ChatRequest(
        "tiny",
        (Message("user", (*images, Text(f"Return JSON about number {number}."))),),
        sampling=SamplingParams(max_tokens=1500, temperature=1.0, seed=number),
        response_format=form,
    )


def test_the_schemas_are_of_every_kind():
    texts = [json.dumps(schema) for schema in SCHEMAS]
    for kind in ('"$ref"', '"anyOf"', '"enum"', '"const"', '"pattern"', '"array"', '"null"', '"minimum"'):
        assert sum(kind in one for one in texts) > 15
    assert len(set(texts)) == 200
    assert max(map(len, texts)) > 1000


@pytest.mark.parametrize(("batch_size", "every"), [pytest.param(16, 1, marks=pytest.mark.slow), (1, 10)])
def test_every_reply_is_json_that_fits(loaded, batch_size, every):
    numbers = range(0, 200, every)
    requests = [ask(number, ResponseFormat("json_schema", schema=SCHEMAS[number])) for number in numbers]
    free = [ask(number) for number in range(50 // every)]
    mixed = [one for pair in zip(requests, free, strict=False) for one in pair] + requests[len(free) :]
    replies = run(Engine(loaded, LocalSettings(max_batch_size=batch_size)), mixed)
    guided = [
        (one.response_format.schema, reply)
        for one, reply in zip(mixed, replies, strict=True)
        if one.response_format
    ]
    assert len(guided) == len(requests)
    assert {reply.finish_reason for _, reply in guided} == {"stop"}
    assert [schema for schema, reply in guided if not fits(json.loads(reply.text), schema)] == []

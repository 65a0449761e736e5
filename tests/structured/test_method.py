"""How an answer of a given form is asked for, by provider and model."""

from dataclasses import replace

import pytest
from pydantic import BaseModel

from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.core.models import ModelInfo
from llama_vision.providers import PROVIDERS, UNBOUNDED, Provider, find_provider
from llama_vision.structured.method import (
    StructuredMethodError,
    best_method,
    parse_method,
    plan_structured_output,
)
from llama_vision.structured.output_schema import OutputSchema

SUREST = {
    "local": "json_schema",
    "deepinfra": "function_calling",
    "aimlapi": "prompt",
    "aigateway": "prompt",
    "cloudflare": "prompt",
    "cloudflare-openai": "function_calling",
    "together": "function_calling",
    "groq": "function_calling",
    "openrouter": "function_calling",
    "fireworks": "json_schema",
    "nvidia": "json_schema",
    "huggingface": "function_calling",
    "sambanova": "function_calling",
    "hyperbolic": "function_calling",
    "ollama": "json_schema",
    "vllm": "json_schema",
    "sglang": "json_schema",
    "llama-vision": "json_schema",
    "lmstudio": "json_schema",
    "openai-compatible": "function_calling",
    "azure": "function_calling",
    "github-models": "function_calling",
    "vercel": "function_calling",
    "io-net": "function_calling",
    "inference-net": "function_calling",
}
MINE = Provider(
    "mine",
    "My own",
    None,
    models=(ModelInfo("one", "theirs/one", enforces_schema=True), ModelInfo("two", "theirs/two")),
)


def test_every_provider_has_its_surest_way_here():
    assert set(SUREST) == set(PROVIDERS), "add what best_method should give for a new record to SUREST"


@pytest.mark.parametrize("name", SUREST)
def test_every_provider_is_asked_in_its_surest_way(name):
    provider = find_provider(name)
    assert best_method(provider, provider.models[0].name) == SUREST[name]


@pytest.mark.parametrize("model", ["one", "theirs/one"])
def test_a_model_that_keeps_to_schemas_gets_one(model):
    assert best_method(MINE, model) == "json_schema"
    assert best_method(MINE, "two") == "function_calling"


def test_a_model_of_another_name_is_as_those_that_are_known():
    assert best_method(MINE, "other") == "function_calling"
    assert best_method(replace(MINE, models=MINE.models[:1]), "other") == "json_schema"
    assert best_method(find_provider("lmstudio"), "my-own-file") == "json_schema"


@pytest.mark.parametrize(
    ("parameters", "info", "method"),
    [
        ({"tools": UNBOUNDED, "tool_choice": UNBOUNDED}, {"enforces_schema": True}, "function_calling"),
        ({"response_format": UNBOUNDED}, {"enforces_schema": True}, "json_schema"),
        (
            {"response_format": UNBOUNDED},
            {"enforces_schema": True, "response_formats": frozenset()},
            "prompt",
        ),
        ({"tools": UNBOUNDED}, {}, "prompt"),
        ({"tool_choice": UNBOUNDED}, {}, "prompt"),
        ({"tools": UNBOUNDED, "tool_choice": UNBOUNDED}, {"tools": False}, "prompt"),
        (None, {"tools": False}, "prompt"),
    ],
)
def test_what_the_provider_does_not_take_is_not_chosen(parameters, info, method):
    provider = replace(MINE, parameters=parameters, models=(ModelInfo("one", "one", **info),))
    assert best_method(provider, "one") == method


def test_a_method_that_is_not_known_is_refused_with_those_that_are():
    assert parse_method("prompt") == "prompt"
    with pytest.raises(
        StructuredMethodError, match=r"'jsonmode'.*auto, json_schema, function_calling"
    ) as caught:
        parse_method("jsonmode")
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, ValueError)


class Shape(BaseModel):
    """A drawn shape."""

    color: str


@pytest.mark.parametrize(
    ("schema", "method", "strict", "sent"),
    [
        (Shape, "auto", None, False),
        (Shape, "json_schema", None, False),
        (Shape, "function_calling", None, False),
        (Shape, "auto", True, True),
        (Shape.model_json_schema(), "auto", None, False),
        (Shape.model_json_schema(), "json_schema", None, None),  # nobody validates the reply
        (Shape.model_json_schema(), "function_calling", None, None),
    ],
)
def test_the_local_model_need_not_enforce_what_is_validated_here(schema, method, strict, sent):
    for name, expected in (("local", sent), ("vllm", strict)):
        provider = find_provider(name)
        model = provider.models[0].name
        plan = plan_structured_output(
            OutputSchema.from_schema(schema), method, provider, model, strict=strict
        )
        (option,) = [
            one for one in (plan.options.get("response_format"), *plan.options.get("tools", ())) if one
        ]
        assert (option.get("json_schema") or option["function"]).get("strict") is expected


@pytest.mark.parametrize(
    "value", [float("nan"), 10**5000, {1, 2}], ids=["NaN", "a number of 5,000 digits", "a set"]
)
def test_a_schema_that_is_no_json_is_refused(value):
    schema = OutputSchema.from_schema({"title": "A", "type": "object", "properties": {"a": {"const": value}}})
    with pytest.raises(UnsupportedInputError, match="schema can't be written as JSON"):
        plan_structured_output(schema, "prompt", MINE, "one")

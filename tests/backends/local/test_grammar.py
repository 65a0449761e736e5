"""Grammars, tried on texts and on randomly drawn tokens, without running a model."""

import json
import random
from datetime import date
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from llama_vision.backends.local.grammar import build_grammar
from llama_vision.backends.local.guided_decoding import unpack_bitmask
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError, UnsupportedInputError
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest, ResponseFormat, Tool, ToolChoice
from tests.fitting import fits

HELLO = (Message("user", (Text("Hi"),)),)
WEATHER = Tool(
    "get_weather",
    "Tells it.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city"],
    },
)
WEATHER_TOMORROW = Tool("get_weather_tomorrow", "Foretells it.", WEATHER.parameters)
NOW = Tool("now", "Tells the time.")
NAMELESS = Tool('caf\u00e9 "x"', "Any.", {})
TOOLS = (WEATHER, WEATHER_TOMORROW, NOW, NAMELESS)
REQUIRED = ToolChoice("required")


class Street(BaseModel):
    """Where someone lives."""

    name: str = Field(max_length=40)
    number: int = Field(gt=0, le=9999)


class Card(BaseModel):
    """One kind of payment."""

    kind: Literal["card"]
    digits: str = Field(pattern=r"^[0-9]{4}$")


class Cash(BaseModel):
    """Another kind."""

    kind: Literal["cash"]


class Person(BaseModel):
    """Someone, with most of what pydantic knows."""

    name: str
    born: date
    tags: list[Literal["tall", "small"]] = Field(max_length=3)
    street: Street
    old: list[Street] = Field(default=[], max_length=2)
    boss: "Person | None" = None
    pays: Annotated[Card | Cash, Field(discriminator="kind")]
    scores: dict[str, float] = {}
    ready: bool = Field(description="Whether ready.")


SCHEMAS = {
    "pydantic": Person.model_json_schema(),
    "no properties": {"type": "object", "properties": {}},
    "closed": {"type": "object", "additionalProperties": False},
    "any object": {"type": "object"},
    "anything inside": {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    "array": {"type": "array", "items": {"type": "integer", "minimum": -3, "maximum": 12}, "minItems": 1},
    "enum": {"enum": ["a b", 2, None, {"c": [1]}]},
    "number": {"type": "number"},
    "nested": {
        "type": "object",
        "properties": {
            "a": {"type": "object", "properties": {"b": {"type": ["string", "null"], "minLength": 2}}},
            "c": {"type": "array", "items": {"anyOf": [{"const": "x"}, {"type": "boolean"}]}, "maxItems": 4},
        },
        "required": ["c", "a"],
    },
    "definitions": {
        "definitions": {"tree": {"type": "object", "properties": {"sub": {"$ref": "#/definitions/tree"}}}},
        "$ref": "#/definitions/tree",
    },
    "itself": {"type": "object", "properties": {"next": {"$ref": "#"}, "s": {"type": "string"}}, "required": ["s"]},
    "put together from what is open": {
        "allOf": [
            {"type": "object"},
            {},
            {"type": "object", "properties": {"a": {}, "b": {"type": "null"}}, "required": ["a"]},
        ]
    },
    "put together": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ]
    },
    "like a call": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parameters": {"type": "array", "items": {"type": "null"}}},
        "required": ["name", "parameters"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


def request(**fields):
    return ChatRequest("tiny", HELLO, **fields)


def form(schema):
    return ResponseFormat("json_schema", schema=schema)


def matcher_of(model, **fields):
    return model.grammar_compiler.compile(build_grammar(request(**fields)))


def allowed_tokens(matcher, vocab_size):
    if not matcher.is_active:
        return np.ones(vocab_size, dtype=bool)
    return unpack_bitmask([matcher.token_bitmask()], vocab_size)[0]


def accepted_prefix(model, matcher, text):
    """The part of a text that is accepted, or None where all of it is."""
    accepted = ""
    for token in tokens_of(model, text):
        if matcher.is_terminated or not allowed_tokens(matcher, 1024)[token]:
            return accepted
        matcher.accept_token(token)
        accepted += model.tokenizer.decode([token], skip_special_tokens=False)
    return None


def tokens_of(model, text):
    tag = "<|python_tag|>"
    token_ids = model.tokenizer.encode(text.removeprefix(tag), add_special_tokens=False).ids
    return [model.tokenizer.token_to_id(tag), *token_ids] if text.startswith(tag) else token_ids


def random_output(model, matcher, seed):
    """Draw allowed tokens until the grammar is complete, preferring closing brackets and quotes."""
    chance = random.Random(seed)
    closing = {
        id_
        for token, id_ in model.tokenizer.get_vocab().items()
        if token.startswith(("}", "]", '"', "n", "\u0120"))
    } | model.eos_token_ids
    tokens = []
    while not matcher.is_terminated and not model.eos_token_ids.intersection(tokens[-1:]):
        allowed = np.flatnonzero(allowed_tokens(matcher, 1024)).tolist()
        preferred = [token for token in allowed if token in closing]
        tokens.append(chance.choice(preferred if preferred and chance.random() < 0.6 else allowed))
        if tokens[-1] not in model.eos_token_ids:
            matcher.accept_token(tokens[-1])
    return model.tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": TOOLS, "tool_choice": ToolChoice("none")},
        {"tools": TOOLS, "text_tool_calls": False},
        {"tools": TOOLS, "tool_choice": ToolChoice("auto"), "text_tool_calls": False},
        {"response_format": ResponseFormat("text")},
    ],
)
def test_unrestricted_output_has_no_grammar(fields):
    assert build_grammar(request(**fields)) is None


def is_call(text, tools):
    called = json.loads(text)
    assert list(called) == ["name", "parameters"]
    tool = next(tool for tool in tools if tool.name == called["name"])
    return isinstance(called["parameters"], dict) and fits(called["parameters"], tool.parameters)


@pytest.mark.parametrize("seed", range(30))
def test_a_required_call_is_always_one(model, seed):
    assert is_call(random_output(model, matcher_of(model, tools=TOOLS, tool_choice=REQUIRED), seed), TOOLS)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_named_call_is_of_that_tool(model, tool):
    for seed in range(5):
        choice = ToolChoice("named", tool.name)
        text = random_output(model, matcher_of(model, tools=TOOLS, tool_choice=choice), seed)
        assert is_call(text, [tool])


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_output_fits_its_schema(model, schema):
    outputs = set()
    for seed in range(12):
        text = random_output(model, matcher_of(model, response_format=form(schema)), seed)
        assert fits(json.loads(text), schema)
        outputs.add(text)
    assert len(outputs) > 2 or schema in (SCHEMAS["no properties"], SCHEMAS["closed"])


@pytest.mark.parametrize("seed", range(10))
def test_random_output_of_a_pydantic_schema_validates(model, seed):
    text = random_output(model, matcher_of(model, response_format=form(SCHEMAS["pydantic"])), seed)
    raw = json.loads(text)
    assert list(raw) == [key for key in Person.model_fields if key in raw]
    Person.model_validate(raw)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_the_same_schemas_as_parameters_of_tools_side_by_side(model, schema):
    if schema.get("type", "object") != "object" or "enum" in schema:
        schema = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    tools = [Tool(name, "", schema) for name in ("f", "g")]
    for seed in range(6):
        text = random_output(model, matcher_of(model, tools=tools, tool_choice=REQUIRED), seed)
        assert is_call(text, tools)


def test_any_object(model):
    for seed in range(12):
        text = random_output(model, matcher_of(model, response_format=ResponseFormat("json_object")), seed)
        assert isinstance(json.loads(text), dict)


CALL = '{"name": "get_weather", "parameters": {"city": "Oslo"}}'


@pytest.mark.parametrize(
    "text",
    [
        'Hello! {"name" is no call here, as words stand before it.',
        '{"nam": 1}',
        '{"names": ["a"], "x": {',
        '[{"name": 1}]',
        CALL,
        '{"name": "get_weather_tomorrow", "parameters": {"city": "Oslo", "unit": "F"}}',
        '{"name": "now", "parameters": {}}',
        '{"name": "caf\u00e9 \\"x\\"", "parameters": {}}',
        f"<|python_tag|>{CALL}",
        '<|python_tag|>brave_search.call(query="Oslo")',
        "\U0001f999 \u00e9\u00e8",
    ],
)  # fmt: skip
def test_free_text_and_calls_are_allowed_where_tools_are_offered(model, text):
    assert accepted_prefix(model, matcher_of(model, tools=TOOLS), text) is None


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ('{"name": "Bingo", "age": 30}', '{"name": "'),
        ('{"name":"now","parameters":{}}', '{"name":'),
        (
            '{"name": "get_weather", "parameters": {"town": "Oslo"}}',
            '{"name": "get_weather", "parameters": {"',
        ),
        ('{"name": "now", "parameters": {"a": 1}}', '{"name": "now", "parameters":'),
        (f"{CALL}; {CALL}", CALL),
        ('<|python_tag|>{"name": "Bingo"', '<|python_tag|>{"name": "'),
    ],
)
def test_what_begins_as_a_call_has_to_be_one(model, text, accepted):
    assert accepted_prefix(model, matcher_of(model, tools=TOOLS), text) == accepted


def test_free_text_is_not_restricted_once_it_can_be_no_call(model):
    matcher = matcher_of(model, tools=TOOLS)
    token_ids = tokens_of(model, "The weather is fine today and tomorrow.")
    assert len(token_ids) > 8
    states = []
    for token in token_ids:
        states.append(matcher.is_active)
        matcher.accept_token(token)
    assert states[:8] == [True] * 8
    assert not matcher.is_active
    assert not matcher.is_terminated
    with pytest.raises(LocalModelError, match="not restricted"):
        matcher.token_bitmask()


def test_the_matcher_is_active_to_the_end_of_a_call(model):
    matcher = matcher_of(model, tools=TOOLS)
    for token in tokens_of(model, CALL):
        assert matcher.is_active
        assert not matcher.is_terminated
        matcher.accept_token(token)
    assert matcher.is_terminated


@pytest.mark.parametrize("choice", [None, ToolChoice("auto")])
def test_beside_a_schema_output_is_a_call_or_fits(model, choice):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }

    def refused(text):
        matcher = matcher_of(model, tools=TOOLS, tool_choice=choice, response_format=form(schema))
        return accepted_prefix(model, matcher, text)

    assert refused(CALL) is None
    assert refused('{"name": "get_weather", "age": 3}') is None
    assert refused('{"name": "Ada", "age": 36}') is None
    assert refused('{"name": "Ada", "parameters": {}}') == '{"name": "Ada", "'
    assert refused("Ada is 36.") == ""


def test_a_required_call_goes_before_the_response_format(model):
    matcher = matcher_of(model, tools=(NOW,), tool_choice=REQUIRED, response_format=form({"type": "integer"}))
    assert not allowed_tokens(matcher, 1024)[tokens_of(model, "1")[0]]
    assert accepted_prefix(model, matcher, '{"name": "now", "parameters": {}}') is None


@pytest.mark.parametrize(
    "fields",
    [{"tool_choice": ToolChoice("none")}, {"text_tool_calls": False}],
)
def test_without_calls_the_response_format_alone_matters(model, fields):
    matcher = matcher_of(model, tools=TOOLS, response_format=form({"type": "boolean"}), **fields)
    assert accepted_prefix(model, matcher, CALL) == ""


def test_the_token_mask_is_as_wide_as_the_logits(model):
    for width in (1000, 1024, 1025, 1100):
        allowed = allowed_tokens(matcher_of(model, tools=TOOLS, tool_choice=REQUIRED), width)
        assert allowed.shape == (width,)
        assert allowed.any()
        assert not allowed[1025:].any()


def test_a_token_that_was_not_allowed_is_an_error(model):
    matcher = matcher_of(model, tools=TOOLS, tool_choice=REQUIRED)
    with pytest.raises(LocalModelError, match="llguidance"):
        matcher.accept_token(tokens_of(model, "Hello")[0])


def test_the_tokenizer_is_prepared_once(model):
    first = model.grammar_compiler._get_ll_tokenizer()
    assert model.grammar_compiler._get_ll_tokenizer() is first
    assert set(first.eos_tokens) == model.eos_token_ids


UNKNOWN = {"type": "object", "properties": {"a": {"type": "string", "format": "tea"}}}


def test_a_grammar_is_compiled_once_and_sequences_do_not_share_its_state(model):
    first, second = (matcher_of(model, response_format=form(SCHEMAS["nested"])) for _ in range(2))
    initial = allowed_tokens(first, 1024)
    first.accept_token(tokens_of(model, "{")[0])
    assert (allowed_tokens(second, 1024) == initial).all()
    third = matcher_of(model, response_format=form(SCHEMAS["nested"]))
    assert (allowed_tokens(third, 1024) == initial).all()
    for number in range(100):
        matcher_of(model, response_format=form({"const": number}))
    assert len(model.grammar_compiler._compiled) == 64


def test_a_schema_that_llguidance_cannot_express_is_refused_by_name(model):
    with pytest.raises(
        UnsupportedInputError, match="schema of response_format: llguidance says `Unknown format: tea`"
    ):
        matcher_of(model, tools=TOOLS, response_format=form(UNKNOWN))
    with pytest.raises(UnsupportedInputError, match="parameters of the tool 'brew'"):
        matcher_of(model, tools=(NOW, Tool("brew", "", UNKNOWN)), tool_choice=REQUIRED)


@pytest.mark.parametrize(
    "schema", [{"type": 5}, {"properties": 3}, {"$ref": "#/nowhere"}, {"anyOf": []}, {"items": 5}]
)
def test_nonsense_is_refused(model, schema):
    with pytest.raises(UnsupportedInputError, match="llguidance says"):
        matcher_of(model, response_format=form(schema))


def test_free_text_stays_unrestricted_beside_a_tool_that_llguidance_cannot_express(model):
    assert matcher_of(model, tools=(NOW, Tool("brew", "", UNKNOWN))) is None

"""What an answer may look like, tried on texts and on words drawn by lot, without a model."""

import json
import random
from datetime import date
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from llama_vision.backends.local.grammar import build_grammar
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


def constraint_of(model, **fields):
    return model.grammar_compiler.constraint(build_grammar(request(**fields)))


def refused_at(model, constraint, text):
    """Tell what of a text is accepted where not all of it is."""
    taken = ""
    for token in tokens_of(model, text):
        if constraint.complete or not constraint.allowed(1024)[token]:
            return taken
        constraint.accept(token)
        taken += model.tokenizer.decode([token], skip_special_tokens=False)
    return None


def tokens_of(model, text):
    tag = "<|python_tag|>"
    words = model.tokenizer.encode(text.removeprefix(tag), add_special_tokens=False).ids
    return [model.tokenizer.token_to_id(tag), *words] if text.startswith(tag) else words


def written_by_lot(model, constraint, seed):
    """Write an answer of words drawn from those allowed, with a liking for brackets and quotes that close."""
    chance = random.Random(seed)
    closing = {
        id_
        for word, id_ in model.tokenizer.get_vocab().items()
        if word.startswith(("}", "]", '"', "n", "\u0120"))
    } | model.end_ids
    tokens = []
    while not constraint.complete and not model.end_ids.intersection(tokens[-1:]):
        allowed = np.flatnonzero(constraint.allowed(1024)).tolist()
        liked = [token for token in allowed if token in closing]
        tokens.append(chance.choice(liked if liked and chance.random() < 0.6 else allowed))
        if tokens[-1] not in model.end_ids:
            constraint.accept(tokens[-1])
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
def test_a_free_answer_has_no_grammar(fields):
    assert build_grammar(request(**fields)) is None


def is_call(text, tools):
    called = json.loads(text)
    assert list(called) == ["name", "parameters"]
    tool = next(tool for tool in tools if tool.name == called["name"])
    return isinstance(called["parameters"], dict) and fits(called["parameters"], tool.parameters)


@pytest.mark.parametrize("seed", range(30))
def test_a_required_call_is_always_one(model, seed):
    assert is_call(
        written_by_lot(model, constraint_of(model, tools=TOOLS, tool_choice=REQUIRED), seed), TOOLS
    )


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_named_call_is_of_that_tool(model, tool):
    for seed in range(5):
        choice = ToolChoice("named", tool.name)
        text = written_by_lot(model, constraint_of(model, tools=TOOLS, tool_choice=choice), seed)
        assert is_call(text, [tool])


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_answer_fits_its_schema(model, schema):
    seen = set()
    for seed in range(12):
        text = written_by_lot(model, constraint_of(model, response_format=form(schema)), seed)
        assert fits(json.loads(text), schema)
        seen.add(text)
    assert len(seen) > 2 or schema in (SCHEMAS["no properties"], SCHEMAS["closed"])


@pytest.mark.parametrize("seed", range(10))
def test_what_is_written_by_lot_is_a_person(model, seed):
    text = written_by_lot(model, constraint_of(model, response_format=form(SCHEMAS["pydantic"])), seed)
    raw = json.loads(text)
    assert list(raw) == [key for key in Person.model_fields if key in raw]
    Person.model_validate(raw)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_the_same_schemas_as_parameters_of_tools_side_by_side(model, schema):
    if schema.get("type", "object") != "object" or "enum" in schema:
        schema = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    tools = [Tool(name, "", schema) for name in ("f", "g")]
    for seed in range(6):
        text = written_by_lot(model, constraint_of(model, tools=tools, tool_choice=REQUIRED), seed)
        assert is_call(text, tools)


def test_any_object(model):
    for seed in range(12):
        text = written_by_lot(
            model, constraint_of(model, response_format=ResponseFormat("json_object")), seed
        )
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
def test_prose_and_calls_may_be_written_where_tools_are_offered(model, text):
    assert refused_at(model, constraint_of(model, tools=TOOLS), text) is None


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
    assert refused_at(model, constraint_of(model, tools=TOOLS), text) == accepted


def test_prose_is_free_as_soon_as_it_can_be_no_call(model):
    constraint = constraint_of(model, tools=TOOLS)
    words = tokens_of(model, "The weather is fine today and tomorrow.")
    assert len(words) > 8
    states = []
    for token in words:
        states.append(constraint.active)
        constraint.accept(token)
    assert states[:8] == [True] * 8
    assert not constraint.active
    assert not constraint.complete
    assert constraint.allowed(1024).all()


def test_a_call_is_watched_to_its_end(model):
    constraint = constraint_of(model, tools=TOOLS)
    for token in tokens_of(model, CALL):
        assert constraint.active
        assert not constraint.complete
        constraint.accept(token)
    assert constraint.complete


@pytest.mark.parametrize("choice", [None, ToolChoice("auto")])
def test_beside_a_schema_an_answer_is_a_call_or_fits(model, choice):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }

    def refused(text):
        constraint = constraint_of(model, tools=TOOLS, tool_choice=choice, response_format=form(schema))
        return refused_at(model, constraint, text)

    assert refused(CALL) is None
    assert refused('{"name": "get_weather", "age": 3}') is None
    assert refused('{"name": "Ada", "age": 36}') is None
    assert refused('{"name": "Ada", "parameters": {}}') == '{"name": "Ada", "'
    assert refused("Ada is 36.") == ""


def test_a_required_call_goes_before_the_form_of_the_answer(model):
    constraint = constraint_of(
        model, tools=(NOW,), tool_choice=REQUIRED, response_format=form({"type": "integer"})
    )
    assert not constraint.allowed(1024)[tokens_of(model, "1")[0]]
    assert refused_at(model, constraint, '{"name": "now", "parameters": {}}') is None


@pytest.mark.parametrize(
    "fields",
    [{"tool_choice": ToolChoice("none")}, {"text_tool_calls": False}],
)
def test_where_no_call_is_wanted_the_form_alone_counts(model, fields):
    constraint = constraint_of(model, tools=TOOLS, response_format=form({"type": "boolean"}), **fields)
    assert refused_at(model, constraint, CALL) == ""


def test_a_mask_is_as_wide_as_the_logits(model):
    for width in (1000, 1024, 1025, 1100):
        allowed = constraint_of(model, tools=TOOLS, tool_choice=REQUIRED).allowed(width)
        assert allowed.shape == (width,)
        assert allowed.any()
        assert not allowed[1025:].any()


def test_a_token_that_was_not_allowed_is_an_error(model):
    constraint = constraint_of(model, tools=TOOLS, tool_choice=REQUIRED)
    with pytest.raises(LocalModelError, match="llguidance"):
        constraint.accept(tokens_of(model, "Hello")[0])


def test_the_vocabulary_is_taken_in_once(model):
    first = model.grammar_compiler._words()
    assert model.grammar_compiler._words() is first
    assert set(first.eos_tokens) == model.end_ids


UNKNOWN = {"type": "object", "properties": {"a": {"type": "string", "format": "tea"}}}


def test_a_grammar_is_compiled_once_and_answers_do_not_share_it(model):
    first, second = (constraint_of(model, response_format=form(SCHEMAS["nested"])) for _ in range(2))
    beginning = first.allowed(1024)
    first.accept(tokens_of(model, "{")[0])
    assert (second.allowed(1024) == beginning).all()
    assert (constraint_of(model, response_format=form(SCHEMAS["nested"])).allowed(1024) == beginning).all()
    for number in range(100):
        constraint_of(model, response_format=form({"const": number}))
    assert len(model.grammar_compiler._compiled) == 64


def test_a_schema_that_can_not_be_kept_to_is_refused_by_name(model):
    with pytest.raises(
        UnsupportedInputError, match="schema of response_format: llguidance says `Unknown format: tea`"
    ):
        constraint_of(model, tools=TOOLS, response_format=form(UNKNOWN))
    with pytest.raises(UnsupportedInputError, match="parameters of the tool 'brew'"):
        constraint_of(model, tools=(NOW, Tool("brew", "", UNKNOWN)), tool_choice=REQUIRED)


@pytest.mark.parametrize(
    "schema", [{"type": 5}, {"properties": 3}, {"$ref": "#/nowhere"}, {"anyOf": []}, {"items": 5}]
)
def test_nonsense_is_refused(model, schema):
    with pytest.raises(UnsupportedInputError, match="llguidance says"):
        constraint_of(model, response_format=form(schema))


def test_nobody_asked_to_keep_a_free_answer_to_a_schema_so_it_stays_free(model):
    assert constraint_of(model, tools=(NOW, Tool("brew", "", UNKNOWN))) is None

"""Strings and objects without limits get some, and what fits the narrowed schema fits the original."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.backends.local.schema_narrowing import (
    ANY_VALUE,
    MAX_KEY_LENGTH,
    MAX_STRING_LENGTH,
    narrow_schema,
)
from tests.fitting import fits

REF_PREFIX = "#/$defs/response"
ANY = {"$ref": "#/$defs/any"}
TEXT = {"type": "string", "maxLength": MAX_STRING_LENGTH}
ANY_KEY = f"^.{{0,{MAX_KEY_LENGTH}}}$"


def closed(**properties):
    return {"type": "object", "properties": properties, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "string", "title": "T", "default": "d"}, TEXT),
        ({"type": "string", "minLength": 2000}, {"type": "string", "minLength": 2000, "maxLength": 2000}),
        ({"type": "string", "pattern": "a+"}, {"type": "string", "pattern": "a+", "maxLength": 512}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"], "maxLength": 512}),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array", "items": TEXT}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"type": "object", "patternProperties": {ANY_KEY: TEXT}, "additionalProperties": False},
        ),
        ({"properties": {"a": {"type": "string"}}}, {"properties": {"a": TEXT}, "additionalProperties": False}),
        ({"type": "object"}, {"type": "object", "patternProperties": {ANY_KEY: ANY}, "additionalProperties": False}),
        ({"type": "object", "properties": {"type": {"type": "string"}}}, closed(type=TEXT)),
        ({"type": "object", "properties": {"a": {}, "b": True}}, closed(a=ANY, b=ANY)),
        ({"description": "anything"}, ANY),
        (
            {"$defs": {"A": {"type": "string"}}, "$ref": "#/$defs/A"},
            {"$defs": {"A": TEXT}, "$ref": f"{REF_PREFIX}/$defs/A"},
        ),
        (
            {"type": "object", "properties": {"next": {"$ref": "#"}}},
            closed(next={"$ref": REF_PREFIX}),
        ),
    ],
)  # fmt: skip
def test_schemas_without_limits_get_some(schema, expected):
    before = copy.deepcopy(schema)
    assert narrow_schema(schema, REF_PREFIX) == expected
    assert schema == before


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 9000},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "string", "const": "a"},
        {"type": "string", "format": "date"},
        {"type": "integer", "minimum": 3},
        {"const": {"type": "string"}},
        {"enum": [{"type": "string"}]},
        {"$ref": "#anchor"},
        {"$ref": "https://example.com/schema"},
        {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "null"}},
        {"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 2},
        {"type": "object", "properties": {"a": {"type": "null"}}, "patternProperties": {"^x": {"type": "null"}}},
        {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]},
        {"type": "object", "properties": {"a": {"type": "null"}}, "anyOf": [{"required": ["a"]}]},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"required": ["b"]}]},
        {"allOf": [{"type": "object"}, {}, {"type": "object", "properties": {"a": {}}}]},
    ],
)  # fmt: skip
def test_schemas_with_limits_or_composition_are_unchanged(schema):
    assert narrow_schema(schema, REF_PREFIX) == schema


def tagged(kind, **fields):
    return {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"], **fields}


@pytest.mark.parametrize(
    ("choices", "certain"),
    [
        ([tagged("a"), tagged("b")], True),
        ([tagged("a"), {"$ref": "#/$defs/B"}], True),
        ([tagged("b"), {"$ref": "#/$defs/B"}], False),
        ([tagged("a"), tagged("c", required=[])], False),
        ([tagged("a"), {"$ref": "#/$defs/C"}], False),
        ([tagged("a"), True], False),
        ([], False),
        (3, False),
    ],
)
def test_one_of_becomes_any_of_where_a_discriminator_is_distinct(choices, certain):
    schema = {
        "discriminator": {"propertyName": "kind"},
        "oneOf": choices,
        "$defs": {"B": tagged("b"), "C": {"type": "string"}},
    }
    narrow = narrow_schema(schema, REF_PREFIX)
    assert ("anyOf" in narrow, "oneOf" in narrow) == (certain, not certain)
    assert "oneOf" in narrow_schema({key: schema[key] for key in ("oneOf", "$defs")}, REF_PREFIX)


def test_properties_keep_their_order():
    names = ["z", "a", "m"]
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in names}}
    assert list(narrow_schema(schema, REF_PREFIX)["properties"]) == names


KEYS = st.text(st.characters(exclude_characters="\n"), max_size=MAX_KEY_LENGTH + 9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)
INVALID = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "object", "#", "#/x", "const"]),
    lambda inner: st.dictionaries(
        st.sampled_from(
            [
                "type",
                "$ref",
                "$defs",
                "properties",
                "required",
                "items",
                "allOf",
                "anyOf",
                "oneOf",
                "discriminator",
                "minLength",
            ]
        ),
        inner | st.lists(inner, max_size=3),
    ),
)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["type", "properties", "allOf", "oneOf", "minLength", "required"]), INVALID
    )
)
def test_invalid_schemas_are_left_for_the_grammar_compiler_to_reject(schema):
    assert isinstance(narrow_schema(schema, REF_PREFIX), dict)


@settings(max_examples=40, deadline=None)
@given(JSON)
def test_any_value_is_any_but_for_what_is_too_long(value):
    root = {"$ref": "#/$defs/any", "$defs": {"any": ANY_VALUE}}
    assert fits(value, root) == (not _too_long(value))


def _too_long(value):
    if isinstance(value, str):
        return len(value) > MAX_STRING_LENGTH
    if isinstance(value, list):
        return any(map(_too_long, value))
    if isinstance(value, dict):
        return any(
            len(key) > MAX_KEY_LENGTH or "\n" in key or _too_long(inner) for key, inner in value.items()
        )
    return False

"""Where a value does not fit a schema."""

import json

import pytest

from llama_vision.structured.validation import first_violation

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "height": {"type": "number"},
        "mood": {"enum": ["good", "bad"]},
        "kind": {"const": "person"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "nick": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "one": {"oneOf": [{"type": "string"}, {"type": "object", "required": ["a"]}]},
        "both": {"allOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]},
        "mother": {"$ref": "#/$defs/Person"},
        "twin": {"$ref": "#"},
        "closed": {"type": "object", "properties": {}, "additionalProperties": False},
        "either": {"type": ["string", "null"]},
        "strange": {"type": "date"},
        "any": True,
        "lost": {"$ref": "#/nowhere"},
        "little": {"minimum": 1, "maximum": 9, "multipleOf": 0.1},
        "inner": {"exclusiveMinimum": 1, "exclusiveMaximum": 9},
        "sloppy": {
            "exclusiveMinimum": True,
            "minLength": "3",
            "multipleOf": 0,
            "pattern": r"\p{L}",
            "required": True,
        },
        "word": {"minLength": 2, "maxLength": 4, "pattern": "^(?!x)"},
        "list": {"minItems": 1, "maxItems": 3, "uniqueItems": True},
        "map": {"minProperties": 1, "maxProperties": 2, "propertyNames": {"pattern": "^[a-z]$"}},
        "patterns": {
            "patternProperties": {"^n": {"type": "number"}},
            "additionalProperties": {"type": "string"},
        },
        "never": False,
        "not": {"not": {"const": 3}},
        "if": {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 2}},
        "whether": {"if": {"type": "string"}},
        "one of": {"oneOf": [{"minimum": 3}, {"maximum": 5}]},
        "needs": {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"required": ["d"]}}},
        "pair": {"prefixItems": [{"type": "string"}], "items": {"type": "number"}},
        "holds": {"contains": {"const": 1}},
        "holds two": {"contains": {"const": 1}, "minContains": 2, "maxContains": 2},
        "old twin": {"$ref": "#/$defs/Person", "required": ["name"]},
    },
    "required": ["name"],
    "$defs": {"Person": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}},
}

FITTING = {
    "age": [3, 3.0, -1],
    "height": [1, 1.75],
    "mood": ["good"],
    "kind": ["person"],
    "tags": [[], ["a", "b"]],
    "nick": ["Bo", None],
    "one": ["x", {"a": 1}],
    "both": [{"a": 1, "b": 2}],
    "mother": [{"age": 50}],
    "twin": [{"name": "Al", "twin": {"name": "Bo"}}],
    "closed": [{}],
    "either": ["x", None],
    "strange": ["2026-01-01", 7],
    "any": [[{"x": [1]}]],
    "lost": [1],
    "unknown": [1, {"deep": [1]}],
    "little": [1, 0.1 + 1, 9, "other"],
    "inner": [2],
    "sloppy": [1, "", {}],
    "word": ["ab", 7],
    "list": [[1, "1", 2], {}],
    "map": [{"a": 1}],
    "patterns": [{"n1": 1, "x": "y"}],
    "not": [4],
    "if": ["ab", 2],
    "whether": ["a", 1],
    "one of": [1, 7],
    "needs": [{}, {"a": 1, "b": 1}, {"c": 1, "d": 1}, 3],
    "pair": [[], ["a", 1, 2]],
    "holds": [[1, 2], "no list"],
    "holds two": [[1, 1]],
    "old twin": [{"age": 1, "name": "Al"}],
}
MISFITTING = {
    "age": (True, "age: should be integer, not true"),
    "height": ("tall", 'height: should be number, not "tall"'),
    "mood": ("fine", 'mood: should be one of ["good", "bad"], not "fine"'),
    "kind": ("dog", 'kind: should be one of ["person"], not "dog"'),
    "tags": (["a", 2], "tags.1: should be string, not 2"),
    "nick": (1, "nick: should be string, not 1 or nick: should be null, not 1"),
    "one": ({}, "one: should be string, not {} or one.a: is missing"),
    "both": ({"a": 1}, "both.b: is missing"),
    "mother": ({"age": 1.5}, "mother.age: should be integer, not 1.5"),
    "twin": ({"name": "Al", "twin": {}}, "twin.twin.name: is missing"),
    "closed": ({"x": 1}, "closed.x: should not be there"),
    "either": (1, "either: should be string or null, not 1"),
    "little": (1.25, "little: should be a multiple of 0.1, not 1.25"),
    "inner": (9, "inner: should be less than 9, not 9"),
    "word": ("xy", 'word: should match ^(?!x), not "xy"'),
    "list": ([{"a": 1}, {"a": 1}], 'list: should have no item twice, not [{"a": 1}, {"a": 1}]'),
    "map": ({"A": 1}, 'map.A: its name should fit {"pattern": "^[a-z]$"}'),
    "patterns": ({"n": "1"}, 'patterns.n: should be number, not "1"'),
    "never": (1, "never: should not be there"),
    "not": (3, 'not: should not fit {"const": 3}, not 3'),
    "if": (1, "if: should be at least 2, not 1"),
    "one of": (4, "one of: should fit only one choice of oneOf, not 4"),
    "needs": ({"a": 1}, "needs.b: is missing"),
    "pair": (["a", "b"], 'pair.1: should be number, not "b"'),
    "holds": ([2], 'holds: should contain at least 1 items that fit {"const": 1}, not [2]'),
    "holds two": ([1, 1, 1], 'holds two: should contain 2 to 2 items that fit {"const": 1}, not [1, 1, 1]'),
    "old twin": ({"age": 1}, "old twin.name: is missing"),
}


@pytest.mark.parametrize("name", FITTING)
def test_what_fits(name):
    assert [first_violation({"name": "Al", name: value}, PERSON) for value in FITTING[name]] == [""] * len(
        FITTING[name]
    )


BEYOND_LIMITS = {
    "little": {0: "be at least 1", 10: "be at most 9"},
    "inner": {1: "be more than 1"},
    "word": {"a": "have at least 2 characters", "abcde": "have at most 4 characters"},
    "list": {"[]": "have at least 1 items", "[1, 2, 3, 4]": "have at most 3 items"},
    "map": {"{}": "have at least 1 properties", '{"a": 1, "b": 1, "c": 1}': "have at most 2 properties"},
    "if": {"a": "have at least 2 characters"},
}


@pytest.mark.parametrize("name", BEYOND_LIMITS)
def test_limits_are_told(name):
    for given, demand in BEYOND_LIMITS[name].items():
        value = json.loads(given) if str(given)[0] in "[{" else given
        told = f"{name}: should {demand}, not {json.dumps(value)}"
        assert first_violation({"name": "Al", name: value}, PERSON) == told


def test_a_schema_that_another_property_demands():
    assert first_violation({"name": "Al", "needs": {"c": 1}}, PERSON) == "needs.d: is missing"
    assert (
        first_violation({"name": "Al", "patterns": {"x": 1}}, PERSON) == "patterns.x: should be string, not 1"
    )
    assert first_violation(1, {"properties": {}, "not": {}}) == "the answer: should not fit {}, not 1"


@pytest.mark.parametrize("name", MISFITTING)
def test_what_does_not_fit_is_told_by_its_place(name):
    value, told = MISFITTING[name]
    assert first_violation({"name": "Al", name: value}, PERSON) == told


def test_the_whole_answer_has_a_name_too():
    assert first_violation([], PERSON) == "the answer: should be object, not []"
    assert (
        first_violation("x" * 500, {"enum": ["a"]}) == f'the answer: should be one of ["a"], not "{"x" * 79}'
    )
    assert first_violation({}, PERSON) == "name: is missing"

"""Where a value does not fit a schema."""

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
}


@pytest.mark.parametrize("name", FITTING)
def test_what_fits(name):
    assert [first_violation({"name": "Al", name: value}, PERSON) for value in FITTING[name]] == [""] * len(
        FITTING[name]
    )


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

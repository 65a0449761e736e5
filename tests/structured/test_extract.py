"""JSON among other words."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.structured.extract import extract_json, retry_message, schema_instructions

WEATHER = '{"city": "Paris", "days": 3}'
FOUND = {
    "alone": (f" \n{WEATHER}\n", WEATHER),
    "a list": ("[1, 2]", "[1, 2]"),
    "a bare value": ('"Paris"', '"Paris"'),
    "in a fence": (f"```json\n{WEATHER}\n```", WEATHER),
    "in a fence without a name": (f"```\n{WEATHER}\n```", WEATHER),
    "in a fence that is never closed": (f"Here:\n```json\n{WEATHER}", WEATHER),
    "in the fence, not the example before it": (f'Like {{"city": "X"}}: ```{WEATHER}```', WEATHER),
    "after words": (f"Sure! Here it is: {WEATHER}", WEATHER),
    "before words": (f"{WEATHER}\n\nI hope that helps :-}}", WEATHER),
    "two": (f'{WEATHER} {{"city": "Rome"}}', WEATHER),
    "after a reference": (f"As [1] says, {WEATHER}", WEATHER),
    "a list of objects after a reference": ('As [1] says, [{"a": 1}]', '[{"a": 1}]'),
    "a list where there is no object": ("The numbers are [1, 2].", "[1, 2]"),
    "after a brace that is none": (f"From {{city}}: {WEATHER}", WEATHER),
    "after a bracket never closed": (f"See [the map {WEATHER} there", WEATHER),
    "after a quote never closed": (f'5" of rain {WEATHER}', WEATHER),
    "brackets in strings": ('Here: {"a": "}]{[", "b": "\\"}"} ok', '{"a": "}]{[", "b": "\\"}"}'),
    "a fence in a string": ('So: {"code": "```py\\nx```"}', '{"code": "```py\\nx```"}'),
    "a line break in a string": ('So: {"a": "x\ny"}', '{"a": "x\ny"}'),
    "not quite JSON": ("So: {'a': 1,} ok", "{'a': 1,}"),
    "cut off": ('{"a": "lo', '{"a": "lo'),
    "none": (" I can't say. ", "I can't say."),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("text", "found"), FOUND.values(), ids=FOUND)
def test_json_is_found(text, found):
    assert extract_json(text) == found


TRUNCATED = {
    "inside of an object": ('{"a": {"b": 1}, "c": "tr', '{"a": {"b": 1}, "c": "tr'),
    "inside of a fence": ('Here: ```json\n{"a": [1, 2], "c', 'Here: ```json\n{"a": [1, 2], "c'),
    "after the object": ('{"a": {"b": 1}} I hope {tha', '{"a": {"b": 1}}'),
}


@pytest.mark.parametrize(("text", "found"), TRUNCATED.values(), ids=TRUNCATED)
def test_a_part_of_truncated_json_is_not_the_json(text, found):
    assert extract_json(text, truncated=True) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.text(min_size=1), JSON, min_size=1, max_size=3), st.text("abc .,!?'\n"), st.booleans()
)
def test_any_object_is_found_among_words(value, words, fenced):
    written = json.dumps(value, ensure_ascii=False)
    around = f"```json\n{written}\n```" if fenced else written
    assert json.loads(extract_json(f"{words}{around}{words}")) == value


def test_backticks_in_a_string_are_no_fence():
    assert extract_json('? {"a": ["```"], "b": []}?') == '{"a": ["```"], "b": []}'
    assert extract_json('Of {"a": 1}: ```json\n[1, 2]\n```') == "[1, 2]"


@given(st.text('{}[]"\\` a\n'))
def test_any_text_gives_a_part_of_it(text):
    assert extract_json(text) in text


@pytest.mark.parametrize("piece", ["[", '{"a":', "[1]", '"', "```", '{"\\', "{a}", "```{", '[{"'], ids=repr)
def test_the_time_grows_with_the_length_and_no_faster(piece):
    def seconds(times):
        begun = time.perf_counter()
        extract_json("x" + piece * times)
        return time.perf_counter() - begun

    seconds(2000)
    assert seconds(40_000) < 0.05 + 60 * max(seconds(2000), seconds(2000))


def test_what_is_said_holds_the_schema_and_the_error():
    schema = {"title": "Été", "type": "object"}
    assert json.dumps(schema, ensure_ascii=False) in schema_instructions(schema)
    assert "days: is missing" in retry_message("days: is missing")

"""Arguments of tool calls that are JSON inside a JSON string: they are read once they are whole, and nothing is lost."""

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.replies import fragment, reply_to, streamed_calls, whole

PARIS = '{"city": "Paris"}'
TWICE = json.dumps(PARIS)


def call_of(arguments):
    calls = [{"id": "a", "function": {"name": "weather", "arguments": arguments}}]
    (call,) = reply_to(whole({"content": None, "tool_calls": calls}, finish_reason="tool_calls")).tool_calls
    return call


def streamed(*pieces):
    head, *rest = pieces
    (call,) = streamed_calls(
        [fragment(head, call_id="a", name="weather", index=0)],
        *([fragment(piece, index=0)] for piece in rest),
    )
    return call


ARGUMENTS = [
    (PARIS, PARIS),
    (TWICE, PARIS),
    (f" {TWICE}\n", PARIS),
    (json.dumps("{}"), "{}"),
    (json.dumps(json.dumps({"city": 'a "b" Zürich\n'})), json.dumps({"city": 'a "b" Zürich\n'})),
    ('"Paris"', '"Paris"'),
    (json.dumps("[1]"), json.dumps("[1]")),
    (json.dumps("7"), json.dumps("7")),
    (TWICE[:-4], TWICE[:-4]),
    (TWICE + "x", TWICE + "x"),
    ('"', '"'),
    ('{"city": "\\"Paris\\""}', '{"city": "\\"Paris\\""}'),
    (json.dumps("[" * 100_000), json.dumps("[" * 100_000)),
]


@pytest.mark.parametrize(("written", "read"), ARGUMENTS, ids=lambda text: text[:30])
def test_an_object_that_was_encoded_twice_is_read_and_anything_else_kept(written, read):
    assert call_of(written).arguments == read


@pytest.mark.parametrize(
    ("written", "read", "size"),
    [
        # Tens of thousands of chunks take their time.
        pytest.param(*pair, size, marks=[pytest.mark.slow] * (len(pair[0]) > 10_000 * size))
        for pair, size in product(ARGUMENTS, [1, 4, 10_000])
    ],
    ids=lambda value: str(value)[:30],
)
def test_it_is_the_same_in_pieces(written, read, size):
    pieces = [written[start : start + size] for start in range(0, len(written), size)]
    # White space before them may be on its way when their first letter comes.
    assert streamed("", *pieces).arguments.lstrip() == read
    assert streamed(*pieces).arguments.lstrip() == read


def test_each_of_several_calls_is_read_by_itself():
    calls = streamed_calls(
        [fragment(TWICE[:5], call_id="a", name="x", index=0), fragment("{", call_id="b", name="y", index=1)],
        [fragment("}", index=1), fragment(TWICE[5:], index=0)],
        [fragment(call_id="c", name="z", index=2)],
    )
    assert [(call.name, call.arguments) for call in calls] == [("x", PARIS), ("y", "{}"), ("z", "{}")]


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.integers()), st.integers(1, 9), st.booleans())
def test_any_arguments_survive(arguments, size, twice):
    written = json.dumps(arguments)
    written = json.dumps(written) if twice else written
    pieces = [written[start : start + size] for start in range(0, len(written), size)]
    assert streamed("", *pieces).parsed() == call_of(written).parsed() == arguments

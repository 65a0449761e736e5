"""Halves of surrogate pairs, however a text was cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_vision.core.surrogates import JsonSurrogateJoiner, SurrogateJoiner, replace_surrogates

RAW = [
    ("a\ud83d\ude00b", "a😀b"),
    ("a\ud83d", "a\ufffd"),
    ("\ude00a", "\ufffda"),
    ("\ud83d\ud83d\ude00", "\ufffd😀"),
    ("\ude00\ud83d", "\ufffd\ufffd"),
    ("\ud83d x", "\ufffd x"),
    ("é 日本 😀", "é 日本 😀"),
    ("", ""),
]
ESCAPED = [
    (r'{"a": "\ud83d\ude00"}', {"a": "😀"}),
    (r'{"a": "\uD83D\uDE00"}', {"a": "😀"}),
    (r'{"a": "\ud83d"}', {"a": "\ufffd"}),
    (r'{"a": "\ude00\ud83d"}', {"a": "\ufffd\ufffd"}),
    (r'{"a": "\ud83d\ud83d\ude00"}', {"a": "\ufffd😀"}),
    (r'{"a": "\ud83d\n\u00e9"}', {"a": "\ufffd\né"}),
    (r'{"a": "\\ud83d"}', {"a": r"\ud83d"}),
    (r'{"a": "\\\ud83d\\"}', {"a": "\\\ufffd\\"}),
    ('{"a": "\ud83d\ude00\ud83d"}', {"a": "😀\ufffd"}),
]


def joined(kind, pieces):
    joiner = kind()
    return "".join(joiner.feed(piece) for piece in pieces) + joiner.close()


def cuts(text):
    yield list(text)
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            yield [text[:first], text[first:second], text[second:]]


@pytest.mark.parametrize(("text", "expected"), RAW, ids=ascii)
def test_halves_are_joined_and_lone_ones_replaced(text, expected):
    assert {joined(SurrogateJoiner, pieces) for pieces in cuts(text)} == {expected}
    assert replace_surrogates(text) == expected


@pytest.mark.parametrize(("text", "expected"), ESCAPED, ids=ascii)
def test_escaped_halves_are_joined_and_lone_ones_replaced(text, expected):
    for pieces in cuts(text):
        assert json.loads(joined(JsonSurrogateJoiner, pieces)) == expected


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ("\\", "\\"),
        ("\\u", "\\u"),
        (r"\ud8", r"\ud8"),
        (r"\ud83d", r"\ufffd"),
        (r"\ud83d\ude", r"\ufffd\ude"),
    ],
)
def test_an_escape_that_was_cut_off_stays_except_for_a_half(cut, expected):
    assert joined(JsonSurrogateJoiner, ["{", cut]) == "{" + expected


TEXT = st.text(alphabet=st.sampled_from("a\\ud83De0\ud83d\ude00😀"))


@given(st.lists(TEXT), st.sampled_from([SurrogateJoiner, JsonSurrogateJoiner]))
def test_the_pieces_do_not_matter_and_the_result_can_be_encoded(pieces, kind):
    text = joined(kind, pieces)
    assert text == joined(kind, ["".join(pieces)])
    assert text.encode().decode() == text

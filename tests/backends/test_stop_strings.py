"""A text ends at the first stop string, however it was cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.backends.stop_strings import StopStringFilter


def stopped(strings, *pieces):
    stops = StopStringFilter(tuple(strings))
    given_out = [stops.feed(piece) for piece in pieces]
    return "".join(given_out) + stops.flush(), stops.hit


def until_first_complete(text, strings):
    """Find it the slow way: letter by letter."""
    for end in range(len(text) + 1):
        starts = [end - len(string) for string in strings if string and text[:end].endswith(string)]
        if starts:
            return text[: min(starts)], True
    return text, False


@pytest.mark.parametrize(
    ("strings", "text", "expected"),
    [
        ([], "all of it", ("all of it", False)),
        ([""], "all of it", ("all of it", False)),
        (["END"], "one END two", ("one ", True)),
        (["END"], "END", ("", True)),
        (["END"], "one EN", ("one EN", False)),
        (["END"], "one ENEND two", ("one EN", True)),
        (["\n\n", "END"], "one\n\ntwo END", ("one", True)),
        (["END", "\n\n"], "one\n\ntwo END", ("one", True)),
        (["aab"], "aaab", ("a", True)),
        (["b", "abc"], "abc", ("a", True)),
        (["bc", "abc"], "abc", ("", True)),
        (["🦙"], "a 🦙 b", ("a ", True)),
    ],
)
def test_at_every_cut(strings, text, expected):
    assert stopped(strings, text) == expected
    assert stopped(strings, *text) == expected
    for cut in range(len(text) + 1):
        assert stopped(strings, text[:cut], text[cut:]) == expected, cut


@settings(deadline=None)
@given(st.lists(st.text("ab", max_size=4), max_size=3), st.lists(st.text("abc", max_size=4)))
def test_any_strings_in_any_text_in_any_pieces(strings, pieces):
    assert stopped(strings, *pieces) == until_first_complete("".join(pieces), strings)


def test_only_what_may_begin_a_stop_string_is_held_back():
    stops = StopStringFilter(("END",))
    assert [stops.feed(piece) for piece in ("one E", "N", "T", "ER", " EN")] == ["one ", "", "ENT", "ER", " "]
    assert stops.flush() == "EN"
    assert stops.flush() == ""


def test_nothing_comes_after_the_stop_string():
    stops = StopStringFilter(("END",))
    assert [stops.feed(piece) for piece in ("one EN", "D two", "three")] == ["one ", "", ""]
    assert stops.hit
    assert stops.flush() == ""

"""Control tokens at the very end of a reply are not part of it, and everything else is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.toolcalls.special_tokens import STOP_TOKENS, SpecialTokenFilter
from tests.dialects.replies import DONE, chunk, events_of, reply_to, whole


def filtered(*pieces):
    tokens = SpecialTokenFilter()
    return "".join([*map(tokens.feed, pieces), tokens.close()])


TEXTS = {
    "Hi": "Hi",
    "Hi</s>": "Hi",
    "Hi<|eot_id|>": "Hi",
    "Hi<|eom_id|>": "Hi",
    "Hi<|end_of_text|>": "Hi",
    "Hi<|eot_id|></s>": "Hi",
    "</s>": "",
    "Hi</s> there": "Hi</s> there",
    "Hi<|eot_id|> there<|eot_id|>": "Hi<|eot_id|> there",
    "1 < 2": "1 < 2",
    "a <": "a <",
    "Hi<|eot": "Hi<|eot",
    "Hi</s": "Hi</s",
    "Hi<</s>": "Hi<",
    "x<<|eot_id|": "x<<|eot_id|",
    "<|python_tag|>call": "<|python_tag|>call",
    "Hi<s>": "Hi<s>",
    "": "",
    "<|start_header_id|>assistant<|end_header_id|>\n\nHi": "Hi",
    "<|start_header_id|>assistant<|end_header_id|>\n\nHi there</s>": "Hi there",
    "<|start_header_id|>assistant<|end_header_id|>\n\n</s>": "",
    "<|start_header_id|>assistant<|end_header_id|>": "",
    "<|start_header_id|>assistant": "<|start_header_id|>assistant",
    "<|start_header_id|>user<|end_header_id|>Hi": "<|start_header_id|>user<|end_header_id|>Hi",
    "a <|start_header_id|>assistant<|end_header_id|>b": "a <|start_header_id|>assistant<|end_header_id|>b",
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.items())
def test_at_every_cut(text, expected):
    assert filtered(text) == expected
    assert filtered(*text) == expected
    for cut in range(len(text) + 1):
        assert filtered(text[:cut], text[cut:]) == expected, cut


@settings(deadline=None)
@given(st.lists(st.sampled_from([*STOP_TOKENS, "<", "<|", "<|eo", "</", "s>", "a", ""])))
def test_only_whole_tokens_at_the_end_are_taken_off(pieces):
    whole_tokens = "|".join(map(re.escape, STOP_TOKENS))
    assert filtered(*pieces) == re.sub(f"(?:{whole_tokens})+$", "", "".join(pieces))


def test_words_without_an_angle_bracket_are_never_held_back():
    tokens = SpecialTokenFilter()
    assert [tokens.feed(word) for word in ("Hi ", "there")] == ["Hi ", "there"]


def test_what_was_held_back_comes_with_the_word_that_clears_it():
    tokens = SpecialTokenFilter()
    assert [tokens.feed(piece) for piece in ("1 <", " 2", "</", "b>")] == ["1 ", "< 2", "", "</b>"]


@pytest.mark.parametrize("token", STOP_TOKENS)
def test_a_whole_reply_loses_its_token(token):
    assert reply_to(whole({"content": f"Hi{token}"})).text == "Hi"


@pytest.mark.parametrize("token", STOP_TOKENS)
def test_a_stream_loses_its_token_in_pieces(token):
    pieces = [chunk({"content": piece}) for piece in ("Hi", *token)]
    assert reply_to(*pieces, chunk(finish_reason="stop"), DONE).text == "Hi"


def test_what_was_held_back_is_delivered_before_the_end():
    events = events_of(chunk({"content": "1 <"}), chunk(finish_reason="length"), DONE)
    assert [type(event).__name__ for event in events] == ["Started", "TextDelta", "TextDelta", "Finished"]
    assert events[2].text == "<"

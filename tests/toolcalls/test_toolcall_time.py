"""Reading takes a time that grows with the text alone, whatever stands in it."""

import sys
import time

import pytest

from llama_vision.toolcalls import ToolCallParser
from tests.toolcalls.cases_record import PARIS, TOOLS, UNKNOWN

LENGTH = 1_000_000
HALF = 100_000
PIECE = 64
MOST = 6.0
"""Seconds of processor time for all of it. It takes up to 1.5, and twice that beside others; by the square it would take hours."""

ARGUMENTS = '{"name": "note", "parameters": {"text": '
TAG = "<|python_tag|>"
KINDS = {
    "braces": ("", "{"),
    "brackets": ("", "["),
    "brackets-closed": ("", "[[]]"),
    "brace-and-quote": ("", '{"'),
    "objects": ("", '{"a"}'),
    "objects-of-known-keys": ("", '{"id"}'),
    "objects-in-lists": ("", '[{"a":'),
    "lists-of-calls": ("", "[note("),
    "lists-of-positional-calls": ("", "[note(x)]"),
    "lists-of-no-calls": ("", "[x(y)]"),
    "items": ("", "a[i] = b[j]; "),
    "angle-brackets": ("", "<"),
    "half-a-tag": ("", "<|python_"),
    "function-tags": ("", "<function=note>"),
    "function-tags-in-each-other": ("", "<function=note>{"),
    "refuted-function-tags": ("", "<function=nope>{}</function>"),
    "python-tags": ("", TAG),
    "backticks": ("", "`"),
    "fences": ("", "```\n```\n"),
    "fences-begun": ("", "```json\n{"),
    "string-of-text": ('{"a": "', "x"),
    "string-of-text-in-escapes": ('{"a": "', "\\"),
    "string": (f'{ARGUMENTS}"', "x"),
    "string-of-escapes": (f'{ARGUMENTS}"', "\\n"),
    "string-of-code-points": (f'{ARGUMENTS}"', "\\u0041"),
    "string-of-lines": (f'{ARGUMENTS}"', "\n"),
    "string-of-the-other-quotes": (f"{ARGUMENTS}'", '"'),
    "string-of-octal-escapes": ("[note(text='", "\\101"),
    "object-encoded-twice": ('{"name": "note", "parameters": "{', '\\"a\\":1,'),
    "digits": (ARGUMENTS, "1"),
    "numbers": (f"{ARGUMENTS}[", "10, "),
    "nesting-of-lists": (ARGUMENTS, "["),
    "nesting-in-text": ('{"a": ', "[{("),
    "long-name": ('{"name": "', "note"),
    "long-word-in-a-list": ("[", "note"),
    "long-keyword": ("[note(", "text"),
    "long-key": ('{"name": "note", "', "text"),
    "many-keys": ('{"name": "note", ', '"key": 1, '),
    "refuted-calls": ("", UNKNOWN),
    "calls-cut-off": ("", PARIS[:-1]),
    "calls": ("", PARIS),
    "calls-in-a-list": ("[", f"{PARIS}, "),
    "calls-in-fences": ("", f"```json\n{PARIS}\n```\n"),
    "python-calls": ("[", "get_time(), "),
    "tagged-calls": (TAG, "get_time.call();"),
    "stop-tokens": ("", "</s>"),
    "stop-tokens-and-text": ("", "</s>a"),
    "space": ("", " "),
    "space-behind-a-call": (PARIS, "\n"),
    "separators-behind-a-call": (PARIS, " ;,"),
    "code": (TAG, 'print("é")\n'),
    "code-like-a-call": (f"{TAG}[note(text='", "x"),
    "prose": ("", "It's a word or two. "),
}
TOOLS_OF = {kind: TOOLS["code" if kind.startswith("code") else "usual"] for kind in KINDS}


def seconds(kind, length, piece):
    """Measure the processor time for a text of a kind."""
    begin, unit = KINDS[kind]
    return seconds_of_text((begin + unit * (length // len(unit)))[:length], piece, TOOLS_OF[kind])


def seconds_of_text(text, piece, tools):
    pieces = [text[start : start + piece] for start in range(0, len(text), piece)]
    parser = ToolCallParser(tools)
    tracer = (
        sys.gettrace()
    )  # that of a coverage measurement, which takes several times as long as what it measures
    sys.settrace(None)
    try:
        began = time.process_time()
        for next_piece in pieces:
            parser.feed(next_piece)
        parser.close()
        return time.process_time() - began
    finally:
        sys.settrace(tracer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_read_quickly(kind):
    assert seconds(kind, LENGTH, LENGTH) < MOST


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow_beyond(8)
def test_twice_the_text_takes_twice_the_time_in_pieces_too(kind):
    ratios = (seconds(kind, 2 * HALF, PIECE) / seconds(kind, HALF, PIECE) for _ in range(3))
    assert any(ratio < 3 for ratio in ratios)


@pytest.mark.parametrize("tools", ["weather", "ipython"])
@pytest.mark.parametrize(
    "unit",
    [
        "`",
        "```\n```\n",
        "<|python_tag|>",
        "<",
        "[",
        "{",
        " ",
        "[[]]",
        "[get_weather",
        "```json\n{",
        "</s>",
        PARIS,
        PARIS + ";\n",
    ],
)
def test_four_times_the_text_takes_four_times_the_time_by_characters_too(unit, tools):
    ratios = (
        seconds_of_text(unit * (8000 // len(unit)), 1, TOOLS[tools])
        / seconds_of_text(unit * (2000 // len(unit)), 1, TOOLS[tools])
        for _ in range(4)
    )
    assert any(ratio < 8 for ratio in ratios)  # by the square it would be 16

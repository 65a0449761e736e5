"""Passes a structure that is no call on as text, to its end, so that nothing inside it is taken for a call."""

import re
from collections.abc import Callable

from llama_vision.toolcalls.source import WORD, Reading, TextSource

_DULL = re.compile(r"""[^\[\](){}"'\\]+""")
_TAG = re.compile(r"[^<>{\n]*")
_IN_STRING = {'"': re.compile(r'[^"\\\n]*'), "'": re.compile(r"[^'\\\n]*")}


def pass_structure(source: TextSource, write: Callable[[str], object]) -> Reading[None]:
    """Read a structure, however broken it is.

    Args:
        source: Stands at its beginning: a brace, a bracket before a name or another bracket, a name, or a tag.
        write: Takes the text, as it comes.

    """
    first = yield from source.peek()
    if first == "<":
        write(source.take(1))
        yield from _pass(source, write, _TAG)
        if (yield from source.peek()) != ">":
            return
        write(source.take(1))
        if (yield from source.space(write)) != "{":
            return
    elif first != "{":
        depth = 0
        if first == "[":
            write(source.take(1))
            yield from source.space(write)
            depth = 1
        yield from _pass(source, write, WORD)
        if (yield from source.space(write)) in ("(", "["):
            yield from _pass_brackets(source, write, depth)
        return
    yield from _pass_brackets(source, write, 0)


def _pass_brackets(source: TextSource, write: Callable[[str], object], depth: int) -> Reading[None]:
    """Read up to the bracket that closes the first one, or the one that `depth` counts already."""
    while True:
        yield from _pass(source, write, _DULL)
        char = yield from source.peek()
        write(source.take(1))
        if not char:
            return
        if char in _IN_STRING:
            yield from _pass_string(source, write, char)
        elif char in "[({":
            depth += 1
        elif char in "])}":
            depth -= 1
            if depth <= 0:
                return


def _pass_string(source: TextSource, write: Callable[[str], object], quote: str) -> Reading[None]:
    """Read to the closing quote, or to the end of the line where it is missing."""
    while True:
        yield from _pass(source, write, _IN_STRING[quote])
        char = yield from source.peek()
        if char == "\\":
            write(source.take(1))
            yield from source.peek()
        write(source.take(1))
        if char != "\\":
            return


def _pass(source: TextSource, write: Callable[[str], object], pattern: re.Pattern[str]) -> Reading[None]:
    """Read what fits a pattern, over the ends of pieces."""
    while True:
        write(source.take_match(pattern))
        if source.position < len(source.text) or not (yield from source.peek()):
            return

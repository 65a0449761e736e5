"""Passes a structure that is no call on as text, to its end, so that nothing inside it is taken for a call."""

import re
from collections.abc import Callable

from llama_vision.toolcalls.source import SPACE, WORD, Reading, TextSource

# A quote that stands alone opens a string that does not end in the piece at hand.
_TOKEN = re.compile(
    r"""(?s:"[^"\\\n]*(?:\\.[^"\\\n]*)*["\n]|'[^'\\\n]*(?:\\.[^'\\\n]*)*['\n]|[\[\](){}"'])"""
)
# The name before a bracket, where all of it is at hand.
_NAME_AT_HAND = re.compile(rf"{SPACE.pattern}{WORD.pattern}{SPACE.pattern}(?=[(\[])")
_TAG = re.compile(r"[^<>{\n]*")
_IN_STRING = {'"': re.compile(r'[^"\\\n]*'), "'": re.compile(r"[^'\\\n]*")}


def pass_structure(source: TextSource, write: Callable[[str], object]) -> Reading[None]:
    """Read a structure, however broken it is.

    Args:
        source: Stands at its beginning: a brace, a bracket before a name or another bracket, a name, or a tag.
        write: Takes the text, as it comes.

    """
    first = source.at_hand
    if first == "<":
        write(source.take(1))
        yield from _pass(source, write, _TAG)
        if (yield from source.peek()) != ">":
            return
        write(source.take(1))
        if (yield from source.space(write)) != "{":
            return
    elif first != "{":
        depth = first.count("[")
        write(source.take(depth))
        write(source.take_match(_NAME_AT_HAND))
        if source.at_hand not in ("(", "["):
            for part in (SPACE, WORD, SPACE):
                yield from _pass(source, write, part)
        if source.at_hand in ("(", "["):
            yield from _pass_brackets(source, write, depth)
        return
    yield from _pass_brackets(source, write, depth=0)


def _pass_brackets(source: TextSource, write: Callable[[str], object], depth: int) -> Reading[None]:
    """Read up to the bracket that closes the first one, or the one that `depth` counts already."""
    while (yield from source.peek()):
        for token in _TOKEN.finditer(source.text, source.position):
            if token[0] in "[({":
                depth += 1
            elif token[0] in "])}":
                depth -= 1
                if depth <= 0:
                    write(source.take(token.end() - source.position))
                    return
            elif token[0] in _IN_STRING:
                write(source.take(token.end() - source.position))
                yield from _pass_string(source, write, token[0])
                break
        else:
            write(source.take(len(source.text)))


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

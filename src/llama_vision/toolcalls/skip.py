"""Skips a balanced structure that is not a call, so that nothing inside it is parsed as one."""

import re

from llama_vision.toolcalls.scanner import SPACE, WORD, IncrementalScanner, Scan, Write

# A lone quote opens a string that does not end in this piece.
_TOKEN = re.compile(
    r"""(?s:"[^"\\\n]*(?:\\.[^"\\\n]*)*["\n]|'[^'\\\n]*(?:\\.[^'\\\n]*)*['\n]|[\[\](){}"'])"""
)
# The name before a bracket, where all of it has arrived.
_NAME_COMPLETE = re.compile(rf"{SPACE.pattern}{WORD.pattern}{SPACE.pattern}(?=[(\[])")
_TAG = re.compile(r"[^<>{\n]*")
_IN_STRING = {'"': re.compile(r'[^"\\\n]*'), "'": re.compile(r"[^'\\\n]*")}


def skip_structure(source: IncrementalScanner, write: Write) -> Scan[None]:
    """Read a structure, however broken it is, and write it as text.

    It begins with a brace, a bracket before a name or another bracket, a name, or a tag.
    """
    first = source.buffered_char
    if first == "<":
        write(source.take(1))
        yield from source.read_while(_TAG, write)
        if (yield from source.peek()) == ">":
            write(source.take(1))
            yield from source.space(write)
        if source.buffered_char != "{":
            return
    elif first != "{":
        depth = first.count("[")
        write(source.take(depth))
        write(source.take_match(_NAME_COMPLETE))
        if source.buffered_char not in ("(", "["):
            for part in (SPACE, WORD, SPACE):
                yield from source.read_while(part, write)
        if source.buffered_char in ("(", "["):
            yield from _skip_brackets(source, write, depth)
        return
    yield from _skip_brackets(source, write, depth=0)


def _skip_brackets(source: IncrementalScanner, write: Write, depth: int) -> Scan[None]:
    """Read to the bracket that closes the first one, or the one that `depth` counts already."""
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
                yield from _skip_string(source, write, token[0])
                break
        else:
            write(source.take(len(source.text)))


def _skip_string(source: IncrementalScanner, write: Write, quote: str) -> Scan[None]:
    """Read to the closing quote, or to the end of the line where it is missing."""
    while True:
        yield from source.read_while(_IN_STRING[quote], write)
        char = yield from source.peek()
        if char == "\\":
            write(source.take(1))
            yield from source.peek()
        write(source.take(1))
        if char != "\\":
            return

"""Incremental reader of JSON values and Python literals, which are written as JSON."""

import json
import math
import re

from llama_vision.toolcalls.scanner import IncrementalScanner, NotACall, Scan, Write

_MAX_DEPTH = 100
"""No tool's arguments are nested this deep, and Python's own json module fails at a few hundred levels."""

_MAX_NUMBER = 400
"""Characters of a number; Python refuses to read integers of more than 4,300 digits."""

# Characters and complete escapes that are the same in JSON.
_PLAIN_STRING = {
    quote: re.compile(rf"""{char}*(?:\\(?:["\\bfnrt]|u[0-9a-fA-F]{{4}}){char}*)*""")
    for quote, char in (('"', r'[^"\\\x00-\x1f]'), ("'", r"[^'\"\\\x00-\x1f]"))
}
# A complete string of such characters only.
_COMPLETE_STRING = {'"': re.compile(r'"[^"\\\x00-\x1f]*"'), "'": re.compile(r"'[^'\"\\\x00-\x1f]*'")}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# A number that is complete, because what follows it has arrived.
_COMPLETE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,19})?(?=[ \t\r\n,\])}])")
_CONSTANTS = {name: name.lower() for name in ("true", "false", "null", "True", "False")} | {"None": "null"}
_JSON_ESCAPES = frozenset('"\\/bfnrt')
_PYTHON_ESCAPES = {"a": "\\u0007", "v": "\\u000b", "'": "'", '"': '\\"', "\\": "\\\\", "\n": ""} | {
    letter: f"\\{letter}" for letter in "bfnrt"
}
_HIGHEST_CODE_POINT = 0x10FFFF
_HEX = frozenset("0123456789abcdefABCDEF")
_MAX_OCTAL = 3
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_OCTAL = frozenset("01234567")
_CLOSING = {"{": "}", "[": "]", "(": ")"}


def take_plain_string(source: IncrementalScanner) -> str | None:
    """Read a string without escapes and return its content, if all of it has arrived."""
    quoted = source.take_match(_COMPLETE_STRING[source.text[source.position]])
    return quoted[1:-1] if quoted else None


def read_string(source: IncrementalScanner, write: Write, *, python: bool) -> Scan[None]:
    """Read a string from its opening quote on, and write it as JSON, or raise `NotACall`.

    With `python`, escapes are Python's, as they always are in single quotes.
    """
    if (whole := take_plain_string(source)) is not None:
        write(f'"{whole}"')
        return
    quote = source.take(1)
    plain = _PLAIN_STRING[quote]
    write('"')
    while True:
        if piece := source.take_match(plain):
            write(piece)
        char = source.buffered_char or (yield from source.peek())
        if char == quote:
            source.position += 1
            write('"')
            return
        if not char:
            raise NotACall
        if char == "\\":
            source.position += 1
            yield from _escape(source, write, python=python or quote == "'")
        elif char == '"' or char < " ":  # a line break as it is, which JSON forbids and models write
            source.position += 1
            write(json.dumps(char)[1:-1])


def _escape(source: IncrementalScanner, write: Write, *, python: bool) -> Scan[None]:
    char = source.buffered_char or (yield from source.peek())
    source.take(1)
    if char == "u" or (python and char in _HEX_DIGITS):
        yield from _code_point(source, write, _HEX_DIGITS[char])
    elif not python:
        if char not in _JSON_ESCAPES:
            raise NotACall
        write("\\" + char)
    elif char in _OCTAL:
        yield from _octal(source, write, char)
    elif char in _PYTHON_ESCAPES:
        write(_PYTHON_ESCAPES[char])
    elif not char or char == "N":  # by name
        raise NotACall
    else:  # not an escape: Python keeps the backslash
        write("\\\\" + (char if char >= " " else json.dumps(char)[1:-1]))


def _code_point(source: IncrementalScanner, write: Write, count: int) -> Scan[None]:
    digits = ""
    while len(digits) < count:
        digit = yield from source.peek()
        if digit not in _HEX:
            raise NotACall
        source.position += 1
        digits += digit
    if count == _HEX_DIGITS["u"]:  # the same in JSON, halves of a pair too
        write("\\u" + digits)
    elif int(digits, 16) > _HIGHEST_CODE_POINT:
        raise NotACall
    else:
        write(json.dumps(chr(int(digits, 16)))[1:-1])


def _octal(source: IncrementalScanner, write: Write, digits: str) -> Scan[None]:
    while len(digits) < _MAX_OCTAL and (source.buffered_char or (yield from source.peek())) in _OCTAL:
        digits += source.take(1)
    write(json.dumps(chr(int(digits, 8)))[1:-1])


def _scalar(source: IncrementalScanner, write: Write, *, python: bool) -> Scan[None]:
    word = yield from source.word(limit=_MAX_NUMBER)
    if word in _CONSTANTS:
        write(_CONSTANTS[word])
    elif _NUMBER.fullmatch(word):
        write(word)
    elif python:
        write(_python_number(word))
    else:
        raise NotACall


def _python_number(word: str) -> str:
    """Convert a number that JSON writes differently: `.5`, `1_000`, `0x1F`."""
    try:
        value: float = int(word, 0)
    except ValueError:
        if not {".", "e", "E"}.intersection(word):  # such as 01
            raise NotACall from None
        try:
            value = float(word)
        except ValueError:
            raise NotACall from None
    if not word.isascii() or not math.isfinite(value):
        raise NotACall
    return json.dumps(value)


class _NestingStack:
    """The open brackets, and what may come next.

    Attributes:
        open: The opening brackets, outermost first.
        members: Number of members of each level so far.
        complete: Whether a member was read last, so that a comma or a closing bracket has to follow.
        comma: Whether a comma was read last; it is written with the next member.
    """

    __slots__ = ("comma", "complete", "members", "open")

    def __init__(self, *opened: str) -> None:
        self.open = list(opened)
        self.members = [0 for _ in opened]
        self.complete = False
        self.comma = False

    def enter(self, bracket: str) -> str:
        """Open a bracket, and return it as JSON."""
        if len(self.open) == _MAX_DEPTH:
            raise NotACall
        self.open.append(bracket)
        self.members.append(0)
        self.complete = self.comma = False
        return "{" if bracket == "{" else "["

    def leave(self, char: str, *, python: bool) -> str:
        """Close the innermost bracket, and return it as JSON."""
        bracket = self.open.pop() if self.open else ""
        if _CLOSING.get(bracket) != char or (self.comma and not python):
            raise NotACall
        if self.members.pop() == 1 and bracket == "(" and not self.comma:
            raise NotACall  # a value in parentheses, and no tuple
        self.complete, self.comma = True, False
        return "}" if bracket == "{" else "]"


def read_value(source: IncrementalScanner, write: Write, *, python: bool) -> Scan[None]:
    """Read a value, and write it as JSON, unchanged where it is JSON, or raise `NotACall`.

    With `python`, Python's syntax is accepted too: tuples, its numbers, its escapes, a trailing comma. Single quotes, `True`,
    `False` and `None` always are.
    """
    yield from _read(source, write, _NestingStack(), python=python)


def read_object_body(source: IncrementalScanner, write: Write) -> Scan[None]:
    """Read an object from behind its opening brace to its closing one, which is not written; see `read_value`."""
    yield from _read(source, write, _NestingStack("{"), python=False)


def _read(source: IncrementalScanner, write: Write, levels: _NestingStack, *, python: bool) -> Scan[None]:
    depth = len(levels.open)
    while not (levels.complete and len(levels.open) == 0):
        gap: list[str] = []
        char = yield from source.space(gap.append)
        if char in ("}", "]", ")"):
            closing = levels.leave(char, python=python)
            source.position += 1
            write("".join(gap))
            if depth == 0 or levels.open:
                write(closing)
        elif levels.complete:
            if char != ",":
                raise NotACall
            source.position += 1
            write("".join(gap))
            levels.complete, levels.comma = False, True
        else:
            write(("," if levels.comma else "") + "".join(gap))
            yield from _member(source, write, levels, char, python=python)


def _member(
    source: IncrementalScanner, write: Write, levels: _NestingStack, char: str, *, python: bool
) -> Scan[None]:
    """Read a member of the innermost level, or only its opening bracket."""
    if levels.open:
        levels.members[-1] += 1
        if levels.open[-1] == "{":
            if char not in _PLAIN_STRING:
                raise NotACall
            yield from read_string(source, write, python=python)
            yield from source.expect(":")
            write(":")
            char = yield from source.space(write)
    levels.comma = False
    if char in _PLAIN_STRING:
        yield from read_string(source, write, python=python)
    elif char in ("{", "[") or (char == "(" and python):
        source.position += 1
        write(levels.enter(char))
        return
    elif number := source.take_match(_COMPLETE_NUMBER):
        write(number)
    else:
        yield from _scalar(source, write, python=python)
    levels.complete = True

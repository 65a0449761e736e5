"""Incremental scanner: reads text that arrives in pieces as if all of it were there."""

import re
from collections.abc import Callable, Container, Generator
from typing import TypeAlias, TypeVar

_Result = TypeVar("_Result")

Scan: TypeAlias = Generator[None, None, _Result]
"""A resumable read: it yields at the end of the text received so far, and is resumed when more has been added."""

Write: TypeAlias = Callable[[str], object]
"""Receives the next piece of text, or of JSON."""

_SPACES = " \t\r\n"
SPACE = re.compile(f"[{_SPACES}]*")
WORD = re.compile(r"[\w.+\-]*")
"""Names and numbers."""

_MAX_NAME = 200
"""Characters of a name that is no tool's, such as an argument's."""


def discard(piece: str) -> None:
    """Write a piece nowhere."""


class NotACall(Exception):  # noqa: N818 - no error: the text is no call, and is emitted as text
    """What looked like a call can't be one."""


class IncrementalScanner:
    """Reads text that arrives in pieces.

    Only the latest piece is stored, so that the time is linear in the text. What may have to be read again is recorded, from
    `mark` on.

    Attributes:
        text: The latest piece.
        position: Index of its next character to be read.
        closed: Whether it was the last.
        cut: Whether the reply was cut off.
        structure: Where in the record a structure begins that is skipped whole if it is no call, so that nothing inside it
            is parsed as one; None where there is none.
    """

    __slots__ = ("_mark", "_recorded", "_recorded_length", "closed", "cut", "position", "structure", "text")

    def __init__(self, text: str = "", *, closed: bool = False) -> None:
        self.text = text
        self.position = 0
        self.closed = closed
        self.cut = False
        self._recorded: list[str] = []
        self._recorded_length = 0
        self._mark: int | None = None
        self.structure: int | None = None

    def add(self, text: str) -> None:
        """Add the next piece, when the one before has been read to its end."""
        if self._mark is not None:
            self._record(self.text[self._mark :])
            self._mark = 0
        self.text = text
        self.position = 0

    def _record(self, piece: str) -> None:
        self._recorded.append(piece)
        self._recorded_length += len(piece)

    def mark(self) -> None:
        """Record what is read from here on, in place of what was recorded so far."""
        self._recorded, self._recorded_length, self._mark = [], 0, self.position
        self.structure = None

    @property
    def num_recorded(self) -> int:
        """Number of characters read since `mark`."""
        return self._recorded_length + self.position - (self._mark or 0)

    def recorded_text(self) -> str:
        """Return what has been read since `mark`."""
        return "".join(self._recorded) + self.text[self._mark or 0 : self.position]

    def drop(self, count: int) -> None:
        """Drop the first characters of the record."""
        remaining, structure = self.recorded_text()[count:], self.structure
        self.mark()
        self._record(remaining)
        self.structure = None if structure is None or structure < count else structure - count

    def rewind(self) -> None:
        """Go back to the mark, and stop recording."""
        if self._recorded:
            self.text, self.position = self.recorded_text() + self.text[self.position :], 0
        else:
            self.position = self._mark or 0
        self.forget()

    def forget(self) -> None:
        """Stop recording."""
        self._recorded, self._recorded_length, self._mark = [], 0, None

    def take(self, count: int) -> str:
        """Read up to `count` characters of the latest piece."""
        piece = self.text[self.position : self.position + count]
        self.position += len(piece)
        return piece

    def take_match(self, pattern: re.Pattern[str]) -> str:
        """Read what matches a pattern here, which may be nothing."""
        match = pattern.match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match.group()

    @property
    def buffered_char(self) -> str:
        """The next character of the latest piece; empty at its end."""
        return self.text[self.position : self.position + 1]

    def peek(self) -> Scan[str]:
        """Return the next character, unread, as soon as it arrives; empty at the end of the text."""
        while self.position == len(self.text):
            if self.closed:
                return ""
            yield
        return self.text[self.position]

    def space(self, write: Write | None = None) -> Scan[str]:
        """Read over white space, which `write` receives, and return the next character as `peek` does."""
        while True:
            following = self.buffered_char
            if following in _SPACES:
                spaces = self.take_match(SPACE)
                if write is not None and spaces:
                    write(spaces)
                following = self.buffered_char
            if following or not (yield from self.peek()):
                return following

    def read_while(self, pattern: re.Pattern[str], write: Write = discard) -> Scan[None]:
        """Read what matches a pattern, across pieces, which `write` receives."""
        while True:
            write(self.take_match(pattern))
            if self.position < len(self.text) or not (yield from self.peek()):
                return

    def word(self, *, prefixes: Container[str] | None = None, limit: int = _MAX_NAME) -> Scan[str]:
        """Read a name or a number.

        `NotACall` is raised at the first character with which it is not among the prefixes; without any, where it has more than
        `limit` characters.
        """
        word = ""
        while True:
            word += self.take_match(WORD)
            if len(word) > limit if prefixes is None else word not in prefixes:
                raise NotACall
            if self.position < len(self.text) or not (yield from self.peek()):
                return word

    def expect(self, char: str) -> Scan[None]:
        """Read this character after white space, or raise `NotACall`."""
        if (yield from self.space()) != char:
            raise NotACall
        self.position += 1

    def one_of(self, tokens: tuple[str, ...]) -> Scan[str]:
        """Read one of these tokens, none of which is a prefix of another, or raise `NotACall`."""
        read = ""
        while read not in tokens:
            following = yield from self.peek()
            read += following
            if not following or not any(token.startswith(read) for token in tokens):
                raise NotACall
            self.position += 1
        return read

"""Text that arrives bit by bit, read as if all of it were there."""

import re
from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

_Result = TypeVar("_Result")

Scan: TypeAlias = Generator[None, None, _Result]
"""A step of reading: it yields where the text has not come yet, and goes on when more of it has."""

_SPACES = " \t\r\n"
SPACE = re.compile(f"[{_SPACES}]*")
WORD = re.compile(r"[\w.+\-]*")
"""Letters, digits, and what numbers and names have besides."""


class NotACall(Exception):  # noqa: N818 - no error: the text is no call, and is passed on as text
    """What looked like a call can't be one."""


class IncrementalScanner:
    """The text so far, and how much of it has been read.

    Only the latest piece is at hand, so that reading takes a time that grows with the text alone. What may have to be
    given back is recorded, from `mark` on.

    Attributes:
        text: The latest piece.
        position: The next character to be read in it.
        closed: Whether no more comes.
        cut: Whether more would have come, had there been room.
        structure: Where in the record something begins that is passed on whole if it is no call, so that nothing inside
            it is taken for one; None where there is no such thing.

    """

    __slots__ = ("_kept", "_kept_length", "_mark", "closed", "cut", "position", "structure", "text")

    def __init__(self, text: str = "", *, closed: bool = False) -> None:
        self.text = text
        self.position = 0
        self.closed = closed
        self.cut = False
        self._kept: list[str] = []
        self._kept_length = 0
        self._mark: int | None = None
        self.structure: int | None = None

    def add(self, text: str) -> None:
        """Take in the next piece, when the one before has been read to its end."""
        if self._mark is not None:
            self._keep(self.text[self._mark :])
            self._mark = 0
        self.text = text
        self.position = 0

    def _keep(self, piece: str) -> None:
        self._kept.append(piece)
        self._kept_length += len(piece)

    def mark(self) -> None:
        """Record what is read from here on, in place of what was recorded so far."""
        self._kept, self._kept_length, self._mark = [], 0, self.position
        self.structure = None

    def mark_structure(self, start: int) -> None:
        """Say where in the record a structure begins."""
        self.structure = start

    @property
    def at_end(self) -> bool:
        """Whether all has been read, and no more comes."""
        return self.closed and self.position == len(self.text)

    @property
    def num_recorded(self) -> int:
        """How many characters have been read since `mark`."""
        return self._kept_length + self.position - (self._mark or 0)

    def recorded_text(self) -> str:
        """Give what has been read since `mark`."""
        return "".join(self._kept) + self.text[self._mark or 0 : self.position]

    def drop(self, count: int) -> None:
        """Take the first characters out of the record."""
        rest, structure = self.recorded_text()[count:], self.structure
        self.mark()
        self._keep(rest)
        self.structure = None if structure is None or structure < count else structure - count

    def rewind(self) -> None:
        """Go back to the mark, and record no more."""
        if self._kept:
            self.text, self.position = self.recorded_text() + self.text[self.position :], 0
        else:
            self.position = self._mark or 0
        self.forget()

    def forget(self) -> None:
        """Record no more."""
        self._kept, self._kept_length, self._mark = [], 0, None

    def take(self, count: int) -> str:
        """Read so many characters of the latest piece, or as many as are left."""
        piece = self.text[self.position : self.position + count]
        self.position += len(piece)
        return piece

    def take_match(self, pattern: re.Pattern[str]) -> str:
        """Read what fits a pattern here, which may be nothing."""
        found = pattern.match(self.text, self.position)
        if found is None:
            return ""
        self.position = found.end()
        return found.group()

    @property
    def buffered_char(self) -> str:
        """The next character, where it has come; empty where it has not."""
        return self.text[self.position : self.position + 1]

    def peek(self) -> Scan[str]:
        """Look at the next character, once it has come; empty where the text has ended."""
        while self.position == len(self.text):
            if self.closed:
                return ""
            yield
        return self.text[self.position]

    def space(self, write: Callable[[str], object] | None = None) -> Scan[str]:
        """Read over white space and look at what follows.

        Args:
            write: Takes the white space.

        Returns:
            The next character, unread; empty where the text has ended.

        """
        while True:
            following = self.buffered_char
            if following in _SPACES:
                passed = self.take_match(SPACE)
                if write is not None and passed:
                    write(passed)
                following = self.buffered_char
            if following or not (yield from self.peek()):
                return following

    def word(self, limit: int) -> Scan[str]:
        """Read letters, digits and what numbers and names have besides.

        Raises:
            NotACall: There are more than `limit`.

        """
        pieces: list[str] = []
        length = 0
        while True:
            piece = self.take_match(WORD)
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                raise NotACall
            if self.position < len(self.text) or not (yield from self.peek()):
                return "".join(pieces)

    def expect(self, wanted: str) -> Scan[None]:
        """Read one character after white space.

        Raises:
            NotACall: It is another one.

        """
        if (yield from self.space()) != wanted:
            raise NotACall
        self.position += 1

    def one_of(self, tokens: tuple[str, ...]) -> Scan[str]:
        """Read one of some texts, none of which begins another.

        Raises:
            NotACall: It is none of them.

        """
        for token in tokens:
            if self.text.startswith(token, self.position):
                self.position += len(token)
                return token
        read = ""
        while read not in tokens:
            following = yield from self.peek()
            read += following
            if not following or not any(token.startswith(read) for token in tokens):
                raise NotACall
            self.position += 1
        return read

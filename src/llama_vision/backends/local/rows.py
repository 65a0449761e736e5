"""The answers in the making, in the order of the slots' rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from llama_vision.backends.local.answer import Answer
from llama_vision.backends.local.slots import Slots
from llama_vision.backends.local.vision import Seen


@dataclass(slots=True, eq=False)
class Row:
    """An answer in the making, or one whose prompt is still being read.

    Attributes:
        answer: The answer.
        position: How many of its words stand in the slots, which is where the next one goes.
        columns: How many columns of pictures it sees.
        written: Its tokens, of which the newest stands nowhere yet.

    """

    answer: Answer
    position: int = 0
    columns: int = 0
    written: list[int] = field(default_factory=list[int])

    @property
    def unread(self) -> int:
        """How many words of its prompt are to be read before anything can be written."""
        return max(len(self.answer.prompt.ids) - self.position, 0)

    @property
    def seen(self) -> list[Seen]:
        """The pictures that the answer sees."""
        return [one for glimpse in self.answer.prompt.lasting if (one := glimpse.picture.seen) is not None]


class Rows:
    """Who is in which row of the slots: without gaps, those with pictures first.

    So a step works on no more than there is, and rows of words alone stay out of the layers that look at pictures.

    Attributes:
        seeing: How many have pictures.

    """

    __slots__ = ("_rows", "_slots", "seeing")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._rows: list[Row] = []
        self.seeing = 0

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, row: Row) -> int:
        """Tell where a row is."""
        return self._rows.index(row)

    def add(self, row: Row) -> None:
        """Give an answer a row, for which there is room, and put what it sees of pictures there.

        Pictures out of its sight are of no use to it.
        """
        place = len(self._rows)
        self._rows.append(row)
        if not row.columns:
            return
        if self.seeing < place:
            self._move(self.seeing, place)
            self._rows[self.seeing] = row
        end = 0
        for seen in row.seen:
            begin, end = end, end + seen.columns
            for layer in seen.keys:
                self._slots.pictures.keys[layer][self.seeing, :, begin:end] = seen.keys[layer]
                self._slots.pictures.values[layer][self.seeing, :, begin:end] = seen.values[layer]
        self.seeing += 1

    def leave(self, rows: Iterable[Row]) -> None:
        """Take answers out, where they are in, and close the gaps."""
        for row in list(rows):
            if row not in self._rows:
                continue
            gap = self.place(row)
            if gap < self.seeing:
                self.seeing -= 1
                gap = self._move(self.seeing, gap)
            self._move(len(self._rows) - 1, gap)
            self._rows.pop()

    def clear(self) -> list[Row]:
        """Take all out, and tell who they were."""
        rows, self._rows, self.seeing = self._rows, [], 0
        return rows

    def _move(self, source: int, target: int) -> int:
        """Move a row, and tell where the gap is now."""
        if source != target:
            row = self._rows[target] = self._rows[source]
            self._slots.move(source, target, row.position, row.columns)
        return source

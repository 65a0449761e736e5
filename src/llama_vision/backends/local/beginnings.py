"""Beginnings of conversations that are kept: whoever goes on with one reads only what is new."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

Word: TypeAlias = int | bytes
"""A token, or where a picture stands, the picture's key."""

_BLOCK = 32
"""Beginnings are looked up by so many words, and by multiples of it; shorter ones are read as fast as they are copied."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    words: Sequence[Word]
    remembered: torch.Tensor


class Beginnings:
    """Keys and values of the words of answers that are over, those that were of use last kept longest.

    What a word left in the layers depends on what came before it alone: on the words, and on the pictures among them.

    Attributes:
        size: Bytes of memory.

    """

    __slots__ = ("_index", "_kept", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[_Kept, None] = OrderedDict()
        self._index: dict[int, _Kept] = {}
        self.size = 0

    def find(self, words: Sequence[Word]) -> torch.Tensor | None:
        """Look for the longest beginning of a prompt that is known.

        Args:
            words: Of the prompt.

        Returns:
            What is remembered of it (keys and values of each layer, heads, words, size), but never of the last word:
            what follows it has to be worked out. None where nothing is known.

        """
        kept, known = self._find(words)
        return None if kept is None else kept.remembered[:, :, : min(known, len(words) - 1)]

    def keep(self, words: Sequence[Word], remembered: Callable[[], torch.Tensor]) -> None:
        """Keep what is remembered of a conversation, in place of earlier stages of the same.

        Args:
            words: The conversation.
            remembered: Makes a copy of what is remembered of it, as `find` returns it; called where it is of use.

        """
        if not self._limit or len(words) < _BLOCK:
            return
        kept, known = self._find(words)
        if known == len(words):
            return
        if kept is not None and known == len(kept.words):
            self._drop(kept)
        new = _Kept(words, remembered())
        if new.remembered.nbytes > self._limit:
            return
        self._kept[new] = None
        self._index.update(dict.fromkeys(_marks(words), new))
        self.size += new.remembered.nbytes
        while self.size > self._limit:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._index.clear()
        self.size = 0

    def _find(self, words: Sequence[Word]) -> tuple[_Kept | None, int]:
        """Find who shares most with a prompt, and how many words."""
        known = [kept for mark in _marks(words) if (kept := self._index.get(mark)) is not None]
        found = known[-1] if known else None
        if found is None:
            return None, 0
        self._kept.move_to_end(found)
        pairs = enumerate(zip(words, found.words, strict=False))
        shared = (number for number, (ours, theirs) in pairs if ours != theirs)
        return found, next(shared, min(len(words), len(found.words)))

    def _drop(self, kept: _Kept) -> None:
        del self._kept[kept]
        self.size -= kept.remembered.nbytes
        for mark in _marks(kept.words):
            if self._index.get(mark) is kept:
                del self._index[mark]


def _marks(words: Sequence[Word]) -> Iterator[int]:
    """Give each beginning of whole blocks a number that hardly any other has."""
    mark = 0
    for end in range(_BLOCK, len(words) + 1, _BLOCK):
        mark = hash((mark, *words[end - _BLOCK : end]))
        yield mark

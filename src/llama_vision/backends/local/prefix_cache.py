"""Beginnings of conversations that are kept: whoever goes on with one reads only what is new."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

PrefixKey: TypeAlias = int | bytes
"""A token, or where an image stands, the image's key."""

_BLOCK_SIZE = 32
"""Beginnings are looked up by so many words, and by multiples of it; shorter ones are read as fast as they are copied."""


@dataclass(frozen=True, slots=True, eq=False)
class _CachedPrefix:
    tokens: Sequence[PrefixKey]
    kv: torch.Tensor


class PrefixCache:
    """Keys and values of the words of answers that are over, those that were of use last kept longest.

    What a word left in the layers depends on what came before it alone: on the words, and on the images among them.

    Attributes:
        num_bytes: Bytes of memory.

    """

    __slots__ = ("_index", "_kept", "_limit", "num_bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[_CachedPrefix, None] = OrderedDict()
        self._index: dict[int, _CachedPrefix] = {}
        self.num_bytes = 0

    def match(self, words: Sequence[PrefixKey]) -> torch.Tensor | None:
        """Look for the longest beginning of a prompt that is known.

        Args:
            words: Of the prompt.

        Returns:
            What is remembered of it (keys and values of each layer, heads, words, size), but never of the last word:
            what follows it has to be worked out. None where nothing is known.

        """
        kept, known = self._longest_match(words)
        return None if kept is None else kept.kv[:, :, : min(known, len(words) - 1)]

    def insert(self, words: Sequence[PrefixKey], remembered: Callable[[], torch.Tensor]) -> None:
        """Keep what is remembered of a conversation, in place of earlier stages of the same.

        Args:
            words: The conversation.
            remembered: Makes a copy of what is remembered of it, as `match` returns it; called where it is of use.

        """
        if not self._limit or len(words) < _BLOCK_SIZE:
            return
        kept, known = self._longest_match(words)
        if known == len(words):
            return
        if kept is not None and known == len(kept.tokens):
            self._evict(kept)
        new = _CachedPrefix(words, remembered())
        if new.kv.nbytes > self._limit:
            return
        self._kept[new] = None
        self._index.update(dict.fromkeys(_block_hashes(words), new))
        self.num_bytes += new.kv.nbytes
        while self.num_bytes > self._limit:
            self._evict(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._index.clear()
        self.num_bytes = 0

    def _longest_match(self, words: Sequence[PrefixKey]) -> tuple[_CachedPrefix | None, int]:
        """Find who shares most with a prompt, and how many words."""
        known = [kept for mark in _block_hashes(words) if (kept := self._index.get(mark)) is not None]
        found = known[-1] if known else None
        if found is None:
            return None, 0
        self._kept.move_to_end(found)
        pairs = enumerate(zip(words, found.tokens, strict=False))
        shared = (number for number, (ours, theirs) in pairs if ours != theirs)
        return found, next(shared, min(len(words), len(found.tokens)))

    def _evict(self, kept: _CachedPrefix) -> None:
        del self._kept[kept]
        self.num_bytes -= kept.kv.nbytes
        for mark in _block_hashes(kept.tokens):
            if self._index.get(mark) is kept:
                del self._index[mark]


def _block_hashes(words: Sequence[PrefixKey]) -> Iterator[int]:
    """Give each beginning of whole blocks a number that hardly any other has."""
    mark = 0
    for end in range(_BLOCK_SIZE, len(words) + 1, _BLOCK_SIZE):
        mark = hash((mark, *words[end - _BLOCK_SIZE : end]))
        yield mark

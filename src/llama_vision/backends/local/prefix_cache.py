"""Prefix cache: keys and values of finished sequences, reused by prompts that begin alike (LRU, block hashes)."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

PrefixKey: TypeAlias = int | bytes
"""A token id, or an image's hash in place of its `<|image|>`."""

_BLOCK_SIZE = 32
"""Tokens of a hashed block. A shorter prefix is computed as fast as it is copied."""

_logger = logging.getLogger("llama_vision")


@dataclass(frozen=True, slots=True, eq=False)
class _CachedPrefix:
    tokens: Sequence[PrefixKey]
    kv: torch.Tensor


class PrefixCache:
    """Self-attention keys and values by prefix. They depend on nothing but the tokens and images of that prefix."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._prefixes: OrderedDict[_CachedPrefix, None] = OrderedDict()
        self._index: dict[int, _CachedPrefix] = {}
        self.num_bytes = 0

    def match(self, tokens: Sequence[PrefixKey]) -> torch.Tensor | None:
        """Find the longest cached prefix of a prompt.

        Returns:
            Keys and values as from `KVCacheGroup.read`, never those of the last token, whose logits have to be computed.
        """
        cached, matched = self._longest_match(tokens)
        if cached is None:
            return None
        _logger.debug("Prefix cache hit: %d of %d prompt tokens", matched, len(tokens))
        return cached.kv[:, :, : min(matched, len(tokens) - 1)]

    def insert(self, tokens: Sequence[PrefixKey], read_kv: Callable[[], torch.Tensor]) -> None:
        """Cache the tokens of prompt and output, in place of a prefix of them; `read_kv` copies their keys and values."""
        if not self._max_bytes or len(tokens) < _BLOCK_SIZE:
            return
        cached, matched = self._longest_match(tokens)
        if matched == len(tokens):
            return
        if cached is not None and matched == len(cached.tokens):
            self._remove(cached)
        new = _CachedPrefix(tokens, read_kv())
        if new.kv.nbytes > self._max_bytes:
            return
        self._prefixes[new] = None
        self._index.update(dict.fromkeys(_block_hashes(tokens), new))
        self.num_bytes += new.kv.nbytes
        while self.num_bytes > self._max_bytes:
            oldest = next(iter(self._prefixes))
            _logger.debug("Prefix cache eviction: %d tokens", len(oldest.tokens))
            self._remove(oldest)

    def clear(self) -> None:
        """Drop everything."""
        self._prefixes.clear()
        self._index.clear()
        self.num_bytes = 0

    def _longest_match(self, tokens: Sequence[PrefixKey]) -> tuple[_CachedPrefix | None, int]:
        """Find the entry with the most blocks in common, and its number of tokens in common."""
        matches = [entry for block in _block_hashes(tokens) if (entry := self._index.get(block)) is not None]
        if not matches:
            return None, 0
        best = matches[-1]
        self._prefixes.move_to_end(best)
        pairs = enumerate(zip(tokens, best.tokens, strict=False))
        differing = (index for index, (token, cached) in pairs if token != cached)
        return best, next(differing, min(len(tokens), len(best.tokens)))

    def _remove(self, entry: _CachedPrefix) -> None:
        del self._prefixes[entry]
        self.num_bytes -= entry.kv.nbytes
        for block in _block_hashes(entry.tokens):
            if self._index.get(block) is entry:
                del self._index[block]


def _block_hashes(tokens: Sequence[PrefixKey]) -> Iterator[int]:
    """Hash every block-aligned prefix, each from the hash of the one before."""
    block = 0
    for end in range(_BLOCK_SIZE, len(tokens) + 1, _BLOCK_SIZE):
        block = hash((block, *tokens[end - _BLOCK_SIZE : end]))
        yield block

"""Block pool: which blocks of the KV cache are free, in use, or kept for a next request (reference counts, LRU)."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

NULL_BLOCK = 0
"""A block that holds nothing: padding rows of CUDA graphs read it and write to it."""


@dataclass(slots=True, eq=False)
class CachedBlocks:
    """Blocks that several sequences may share, and that stay cached when no sequence uses them any more.

    Attributes:
        block_ids: Their ids.
        cache: The cache they count for.
        forget: Drops them from that cache's index; called when they are evicted.
        ref_count: Sequences that use them. At 0 they may be evicted.
        last_used: When the last of these was gone; a counter.
    """

    block_ids: list[int]
    cache: "LRUCache"
    forget: Callable[[], None]
    ref_count: int = 1
    last_used: int = 0


@dataclass(slots=True, eq=False)
class LRUCache:
    """Cached blocks of one kind that no sequence uses, least recently used first.

    Attributes:
        max_blocks: Blocks in it at most; None where only the size of the pool limits it.
    """

    max_blocks: int | None = None
    num_blocks: int = 0
    unused: OrderedDict[CachedBlocks, None] = field(default_factory=OrderedDict[CachedBlocks, None])


class BlockPool:
    """Hands out blocks by id. Cached blocks without users are evicted when no other block is left."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks - 1  # without the null block
        # Last freed, first used: memory of a CPU that was never touched stays untouched.
        self._free = list(range(num_blocks - 1, NULL_BLOCK, -1))
        self._caches: list[LRUCache] = []
        self._clock = itertools.count()

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated, cached ones without users included."""
        return len(self._free) + sum(cache.num_blocks for cache in self._caches)

    def add_cache(self, max_blocks: int | None) -> LRUCache:
        """Add a kind of cached blocks; see `LRUCache`."""
        cache = LRUCache(max_blocks)
        self._caches.append(cache)
        return cache

    def allocate(self, count: int) -> list[int]:
        """Allocate blocks, at most `num_available`, evicting what was not used for longest."""
        while len(self._free) < count:
            self.evict(min(self._oldest(), key=lambda cached: cached.last_used))
        return [self._free.pop() for _ in range(count)]

    def free(self, block_ids: Sequence[int]) -> None:
        """Give back blocks that are not cached."""
        self._free.extend(reversed(block_ids))

    def retain(self, cached: CachedBlocks) -> None:
        """Count one more user."""
        if cached.ref_count == 0:
            del cached.cache.unused[cached]
            cached.cache.num_blocks -= len(cached.block_ids)
        cached.ref_count += 1

    def release(self, cached: CachedBlocks) -> None:
        """Count one user less. Without users the blocks stay, as long as their cache has room."""
        cached.ref_count -= 1
        if cached.ref_count:
            return
        cache = cached.cache
        cached.last_used = next(self._clock)
        cache.unused[cached] = None
        cache.num_blocks += len(cached.block_ids)
        while cache.max_blocks is not None and cache.num_blocks > cache.max_blocks:
            self.evict(next(iter(cache.unused)))

    def clear(self, cache: LRUCache) -> None:
        """Evict all cached blocks of a kind that have no users."""
        while cache.unused:
            self.evict(next(iter(cache.unused)))

    def evict(self, cached: CachedBlocks) -> None:
        """Free cached blocks that have no users."""
        del cached.cache.unused[cached]
        cached.cache.num_blocks -= len(cached.block_ids)
        cached.forget()
        self.free(cached.block_ids)

    def _oldest(self) -> list[CachedBlocks]:
        return [next(iter(cache.unused)) for cache in self._caches if cache.unused]

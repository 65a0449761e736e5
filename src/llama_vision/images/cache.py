"""Cache of prepared images, keyed by content: a conversation sends the same images again with every turn."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

from llama_vision.core.messages import Image
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.settings import EncodingOptions

_KEY_BYTES = 4096  # of either end of the file
_Key: TypeAlias = tuple[int, int, int, str | None, ImageConstraints, EncodingOptions]


@dataclass(frozen=True, slots=True)
class _Entry:
    original: bytes
    prepared: Image

    @property
    def size(self) -> int:
        data = self.prepared.data or b""
        return len(self.original) + (0 if data is self.original else len(data))


class PreparedImageCache:
    """An LRU cache from an image to what was prepared of it; safe for threads.

    An image is looked up by its length and ends, and then compared byte by byte: that is far cheaper than hashing all
    of it, and excludes collisions.

    Args:
        max_bytes: The maximum size of originals and results together.
    """

    def __init__(self, max_bytes: int = 64_000_000) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._lock = Lock()
        self._bytes = 0

    @property
    def total_bytes(self) -> int:
        """The size of originals and results."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, image: Image, constraints: ImageConstraints, options: EncodingOptions) -> Image | None:
        """Look up what was prepared of an image; None on a miss."""
        key = _key(image, constraints, options)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
        # Compared outside the lock: for a large image it takes a while.
        return entry.prepared if entry is not None and entry.original == image.data else None

    def put(
        self, image: Image, constraints: ImageConstraints, options: EncodingOptions, prepared: Image
    ) -> None:
        """Add what was prepared of an image, unless it alone is larger than the cache."""
        entry = _Entry(image.data or b"", prepared)
        if entry.size > self.max_bytes:
            return
        key = _key(image, constraints, options)
        with self._lock:
            replaced = self._entries.pop(key, None)
            self._bytes += entry.size - (replaced.size if replaced else 0)
            self._entries[key] = entry
            while self._bytes > self.max_bytes:
                self._bytes -= self._entries.popitem(last=False)[1].size

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _key(image: Image, constraints: ImageConstraints, options: EncodingOptions) -> _Key:
    data = image.data or b""
    return len(data), hash(data[:_KEY_BYTES]), hash(data[-_KEY_BYTES:]), image.detail, constraints, options

"""Encoder cache: encoded images, whose keys and values stand once in the KV cache however many sequences attend to them."""

from collections.abc import Iterable
from dataclasses import dataclass

from llama_vision.backends.local.block_pool import BlockPool, CachedBlocks


@dataclass(slots=True, eq=False)
class EncodedImage:
    """An image in the KV cache.

    Attributes:
        blocks: Its keys and values in all cross-attention layers.
        num_vision_tokens: One for each patch of each tile that is not padding.
        is_encoded: Whether they are written already.
    """

    blocks: CachedBlocks
    num_vision_tokens: int
    is_encoded: bool = False


class EncoderCache:
    """Finds encoded images by the hash of their bytes (LRU)."""

    def __init__(self, pool: BlockPool, max_blocks: int | None) -> None:
        self._pool = pool
        self._cache = pool.add_cache(max_blocks)
        self._images: dict[bytes, EncodedImage] = {}

    @property
    def num_unused_blocks(self) -> int:
        """Blocks of images that no sequence uses."""
        return self._cache.num_blocks

    def num_vision_tokens(self, key: bytes) -> int | None:
        """Vision tokens of an encoded image; None where it is not cached. It may be called in any thread."""
        image = self._images.get(key)
        return None if image is None or not image.is_encoded else image.num_vision_tokens

    def retain(self, key: bytes) -> EncodedImage | None:
        """Get an image for one more sequence; None where it is not cached."""
        image = self._images.get(key)
        if image is not None:
            self._pool.retain(image.blocks)
        return image

    def add(self, key: bytes, block_ids: list[int], num_vision_tokens: int) -> EncodedImage:
        """Add an image, to be encoded, for one sequence."""
        blocks = CachedBlocks(block_ids, self._cache, lambda: self._forget(key))
        image = self._images[key] = EncodedImage(blocks, num_vision_tokens)
        return image

    def release(self, images: Iterable[EncodedImage]) -> None:
        """A sequence uses these no more."""
        for image in images:
            self._pool.release(image.blocks)
            if not image.is_encoded and image.blocks in self._cache.unused:  # encoding has failed
                self._pool.evict(image.blocks)

    def _forget(self, key: bytes) -> None:
        del self._images[key]

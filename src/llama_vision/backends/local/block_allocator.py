"""Block allocator: admits sequences by the blocks they need, and keeps their block tables."""

from collections import abc
from dataclasses import dataclass

import torch

from llama_vision.backends.local.block_pool import BlockPool
from llama_vision.backends.local.block_tables import BlockTables
from llama_vision.backends.local.encoder_cache import EncodedImage, EncoderCache
from llama_vision.backends.local.image_input import ImageInput
from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.prefix_cache import PrefixCache, PrefixNode
from llama_vision.backends.local.sequence import Sequence, TokenizedPrompt


@dataclass(slots=True, eq=False, repr=False)
class BlockTable:
    """The blocks of a running sequence.

    Attributes:
        row: Its row of the block tables.
        block_ids: Blocks of its tokens, in order.
        prefix_nodes: Those of them that the prefix cache knows, which are the first ones.
        images: Those that its tokens attend to, by key, other than tokens of a cached prefix.
        output_images: Those that output tokens attend to, in order.
    """

    row: int
    block_ids: list[int]
    prefix_nodes: list[PrefixNode]
    images: dict[bytes, EncodedImage]
    output_images: list[EncodedImage]


class BlockAllocator:
    """Gives sequences their blocks, and writes them to the block tables.

    Attributes:
        tables: The block tables.
    """

    def __init__(
        self,
        kv_caches: abc.Sequence[KVCache],
        pool: BlockPool,
        prefix_cache: PrefixCache,
        encoder_cache: EncoderCache,
        *,
        max_num_seqs: int,
        max_model_len: int,
        device: torch.device,
    ) -> None:
        """Take the KV cache of each pipeline stage, and the device that the block tables are on."""
        self._kv_caches, self._layout, self._pool = kv_caches, kv_caches[0].layout, pool
        self._prefix_cache, self._encoder_cache = prefix_cache, encoder_cache
        self.tables = BlockTables(
            self._layout,
            max_num_seqs=max_num_seqs,
            max_blocks=self._layout.num_blocks(max_model_len),
            max_vision_blocks=pool.num_blocks,
            device=device,
        )

    def num_tokens_beside_images(self, prompt: TokenizedPrompt) -> int:
        """Tokens that the whole pool has room for beside a prompt's images."""
        images = {span.image.key: span.image for span in prompt.image_spans}
        num_image_blocks = sum(self._num_blocks(image) for image in images.values())
        num_columns = sum(self._num_blocks(span.image) for span in prompt.image_spans)
        if (
            num_columns > self._pool.num_blocks
        ):  # an image that comes again stands once, but is attended to twice
            return 0
        return max(self._pool.num_blocks - num_image_blocks, 0) * self._layout.block_size

    def allocate(self, seq: Sequence, num_reserved: int) -> bool:
        """Give a sequence blocks for all tokens to prefill and for its images, as far as they are not cached.

        Returns:
            False where `num_reserved` would not stay available. Then nothing has changed.
        """
        # To copy a block takes one more for a moment: the last one there is, if the sequence is alone.
        return self._try_to_allocate(seq, num_reserved) or self._try_to_allocate(
            seq, num_reserved, copies=False
        )

    def append_slots(self, seq: Sequence, num_tokens: int) -> bool:
        """Make sure that there are blocks for so many more tokens; False where these are not available."""
        table = seq.running_block_table
        total = self._layout.num_blocks(seq.num_computed_tokens + num_tokens)
        num_missing = max(total - len(table.block_ids), 0)
        if not num_missing:
            return True
        if num_missing > self._pool.num_available:
            return False
        new = self._pool.allocate(num_missing)
        self._zero_blocks(new)
        table.block_ids += new
        self.tables.set_tokens(table.row, new, start=len(table.block_ids) - num_missing)
        return True

    def cache_prefix(self, seq: Sequence, *, is_complete: bool = False) -> None:
        """Let prompts that begin alike share the computed blocks; `is_complete` where no token will follow."""
        table = seq.running_block_table
        changed = self._prefix_cache.insert(
            seq.computed_cache_key, table.block_ids, table.prefix_nodes, is_complete=is_complete
        )
        if changed and not is_complete:
            self.tables.set_tokens(table.row, table.block_ids)

    def free(self, seq: Sequence) -> None:
        """Take a sequence's blocks back; those of its prefix and its images stay cached."""
        table = seq.running_block_table
        seq.block_table = None
        self._pool.free(table.block_ids[len(table.prefix_nodes) :])
        self._prefix_cache.release(table.prefix_nodes)
        self._encoder_cache.release(table.images.values())
        self.tables.free_row(table.row)

    def _try_to_allocate(self, seq: Sequence, num_reserved: int, *, copies: bool = True) -> bool:
        match = self._prefix_cache.match(seq.prefill_cache_key, partial=copies)
        spans = seq.prompt.visible_spans(match.num_tokens, seq.num_prefill_tokens)
        inputs = {span.image.key: span.image for span in spans}
        images = {key: image for key in inputs if (image := self._encoder_cache.retain(key)) is not None}
        missing = [image for key, image in inputs.items() if key not in images]
        count = self._layout.num_blocks(seq.num_prefill_tokens) - len(match.nodes)
        total = count + sum(self._num_blocks(image) for image in missing)
        if total + num_reserved > self._pool.num_available:
            self._encoder_cache.release(images.values())
            self._prefix_cache.release(match.retained)
            return False
        for image in missing:
            block_ids = self._pool.allocate(self._num_blocks(image))
            images[image.key] = self._encoder_cache.add(image.key, block_ids, image.num_vision_tokens)
        new = self._pool.allocate(count)
        end = len(seq.prompt.token_ids)
        table = seq.block_table = BlockTable(
            row=self.tables.reserve_row(),
            block_ids=[*(node.block_id for node in match.nodes), *new],
            prefix_nodes=match.nodes,
            images=images,
            output_images=[images[span.image.key] for span in seq.prompt.visible_spans(end, end + 1)],
        )
        # From here on `free` takes all back, should the device fail.
        self._zero_blocks(new)
        if match.partial is not None:
            for kv_cache in self._kv_caches:
                kv_cache.copy_block(match.partial.block_id, new[0])
            self._prefix_cache.release([match.partial])
        self.tables.set_tokens(table.row, table.block_ids)
        self.tables.set_images(table.row, table.output_images)
        seq.num_computed_tokens = match.num_tokens
        return True

    def _zero_blocks(self, block_ids: list[int]) -> None:
        for kv_cache in self._kv_caches:
            kv_cache.zero_blocks(block_ids)

    def _num_blocks(self, image: ImageInput) -> int:
        return self._layout.num_vision_blocks(image.num_vision_tokens)

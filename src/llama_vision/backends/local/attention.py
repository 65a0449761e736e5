"""Attention over the KV cache, in torch: of a prefill pass, several prompts at once, and of a decode step."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import torch
from torch.nn import functional

from llama_vision.backends.local.block_tables import BlockTables
from llama_vision.backends.local.encoder_cache import EncodedImage
from llama_vision.backends.local.kernels import TORCH_KERNELS, Kernels
from llama_vision.backends.local.kv_cache import KVCache

_MAX_KEPT_BYTES = 2**26
"""Images' keys and values that are copied out of their blocks once, and not in every step: a small model's."""


Rope: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of the tokens' positions, (tokens, head_dim) each; see `RopeAndCache`."""


class Attention(Protocol):
    """Attention of one forward pass, whose tokens follow each other without padding.

    Layers are counted among those of their kind and pipeline stage.
    """

    @property
    def image_rows(self) -> torch.Tensor | slice | None:
        """The tokens that attend to images, in order; None where there are none."""
        ...

    @property
    def image_row_mask(self) -> torch.Tensor | None:
        """Which of these do attend to images, (image_rows, 1); None where all do."""
        ...

    def self_attention(self, layer: int, heads: torch.Tensor, rope: Rope) -> torch.Tensor:
        """Rotate, write keys and values of a self-attention layer, and attend causally to those of the same sequence.

        Queries, keys and values (tokens, num_heads + 2 x num_kv_heads, head_dim) -> (tokens, num_heads, head_dim).
        """
        ...

    def cross_attention(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Attend to images: (image_rows, num_heads, head_dim) -> the same."""
        ...


class BlockReader:
    """Copies keys and values of some block tables out of the pool, layer by layer."""

    def __init__(self, cache: torch.Tensor, tables: torch.Tensor) -> None:
        """Take `KVCache.tokens` or `.vision`, and block ids (sequences, blocks)."""
        num_heads, block_size, head_dim = cache.shape[3:]
        width = block_size * head_dim
        rows_per_block = cache.stride(0) // width
        self._rows = cache.as_strided((len(cache) * rows_per_block, width), (width, 1))
        self._per_layer = 2 * num_heads
        kinds_and_heads = torch.arange(self._per_layer, device=cache.device).view(2, 1, num_heads, 1)
        self._index = (tables.long() * rows_per_block)[None, :, None] + kinds_and_heads
        self._shape = 2, len(tables), num_heads, tables.shape[1] * block_size, head_dim

    def read(self, layer: int) -> torch.Tensor:
        """Keys and values: (2, sequences, num_kv_heads, blocks x block_size, head_dim)."""
        index = (self._index + layer * self._per_layer).flatten()
        return self._rows.index_select(0, index).view(self._shape)


class BlockWriter:
    """Rotates queries and keys of new tokens, and writes keys and values to their blocks."""

    def __init__(
        self,
        kv_cache: KVCache,
        block_ids: torch.Tensor,
        offsets: torch.Tensor,
        kernels: Kernels = TORCH_KERNELS,
    ) -> None:
        """Take each token's block, and its place there, (tokens,)."""
        self._tokens, self._block_ids, self._offsets = kv_cache.tokens, block_ids, offsets
        self._rope_and_cache = kernels.rope_and_cache

    def write(self, layer: int, heads: torch.Tensor, rope: Rope) -> None:
        """Write the keys and values of one layer; see `Attention.self_attention`."""
        self._rope_and_cache(heads, *rope, self._tokens[:, layer], self._block_ids, self._offsets)


@dataclass(frozen=True, slots=True)
class ImageSegment:
    """Tokens `start` to `stop`, exclusive, of a sequence, and the images that they attend to."""

    start: int
    stop: int
    images: tuple[EncodedImage, ...]


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Prompt tokens that one forward pass computes; the blocks hold those before.

    Attributes:
        token_ids: The tokens.
        start: Position of the first one.
        block_ids: The sequence's blocks, of these tokens too.
        segments: In order. Tokens in none of them attend to no image.
    """

    token_ids: list[int]
    start: int
    block_ids: list[int]
    segments: tuple[ImageSegment, ...] = ()

    @property
    def stop(self) -> int:
        """Position after the last one."""
        return self.start + len(self.token_ids)


class PrefillAttention:
    """Attention of a prefill pass: each chunk attends to its own sequence, without a mask where it can do without."""

    image_row_mask = None

    def __init__(self, kv_cache: KVCache, chunks: Sequence[PrefillChunk]) -> None:
        device, size = kv_cache.tokens.device, kv_cache.layout.block_size
        positions = [range(chunk.start, chunk.stop) for chunk in chunks]
        blocks = [
            chunk.block_ids[p // size] for chunk, its in zip(chunks, positions, strict=True) for p in its
        ]
        offsets = [p % size for its in positions for p in its]
        self._writer = BlockWriter(
            kv_cache, torch.tensor(blocks, device=device), torch.tensor(offsets, device=device)
        )
        ends = [0]
        for chunk in chunks:
            ends.append(ends[-1] + len(chunk.token_ids))
        self._chunks = [
            _ChunkAttention(kv_cache, chunk, slice(ends[index], ends[index + 1]))
            for index, chunk in enumerate(chunks)
        ]
        self._segments = [
            _SegmentAttention(kv_cache, segment, ends[index] - chunk.start)
            for index, chunk in enumerate(chunks)
            for segment in chunk.segments
        ]
        self.image_rows = self._image_rows(ends[-1], device)

    def self_attention(self, layer: int, heads: torch.Tensor, rope: Rope) -> torch.Tensor:
        """See `Attention`."""
        self._writer.write(layer, heads, rope)
        return torch.cat([chunk.attend(layer, heads) for chunk in self._chunks])

    def cross_attention(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """See `Attention`."""
        ends = itertools.accumulate(segment.num_tokens for segment in self._segments)
        return torch.cat(
            [
                segment.attend(layer, query[end - segment.num_tokens : end])
                for segment, end in zip(self._segments, ends, strict=True)
            ]
        )

    def _image_rows(self, num_tokens: int, device: torch.device) -> torch.Tensor | slice | None:
        if not self._segments:
            return None
        rows = [row for segment in self._segments for row in segment.rows]
        return slice(None) if len(rows) == num_tokens else torch.tensor(rows, device=device)


class _ChunkAttention:
    """Causal self-attention of one chunk: to its own tokens, and to those before in the KV cache."""

    def __init__(self, kv_cache: KVCache, chunk: PrefillChunk, rows: slice) -> None:
        self._rows, self._stop = rows, chunk.stop
        self._num_kv_heads = kv_cache.layout.num_kv_heads
        self._mask: torch.Tensor | None = None
        self._reader: BlockReader | None = None
        if chunk.start:
            device = kv_cache.tokens.device
            block_ids = chunk.block_ids[: kv_cache.layout.num_blocks(chunk.stop)]
            self._reader = BlockReader(kv_cache.tokens, torch.tensor([block_ids], device=device))
            self._mask = _lower_right_mask(len(chunk.token_ids), chunk.stop, device)

    def attend(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        query, kv = _split(heads[self._rows], self._num_kv_heads)
        if self._reader is None:
            keys, values = kv.permute(1, 2, 0, 3)
            return _attend(query, keys, values, None, is_causal=True)
        keys, values = self._reader.read(layer)[:, 0, :, : self._stop]
        return _attend(query, keys, values, self._mask, is_causal=False)


class _SegmentAttention:
    """Cross-attention of tokens that attend to the same images: all to all, without a mask."""

    def __init__(self, kv_cache: KVCache, segment: ImageSegment, first_row: int) -> None:
        self.num_tokens = segment.stop - segment.start
        self.rows = range(first_row + segment.start, first_row + segment.stop)
        block_ids = [block_id for image in segment.images for block_id in image.blocks.block_ids]
        self._reader = BlockReader(kv_cache.vision, torch.tensor([block_ids], device=kv_cache.vision.device))
        size = kv_cache.layout.vision_block_size
        starts = [0]
        for image in segment.images:
            starts.append(starts[-1] + len(image.blocks.block_ids) * size)
        self._columns = [
            slice(start, start + image.num_vision_tokens)
            for start, image in zip(starts, segment.images, strict=False)
        ]

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        kv = self._reader.read(layer)[:, 0]
        parts = [kv[:, :, columns] for columns in self._columns]
        keys, values = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return _attend(query, keys, values, None, is_causal=False)


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """The sequences of a decode step, those with images first.

    Attributes:
        positions: Of the new token of each sequence, (sequences,).
        tables: Block ids, (sequences, blocks), of as many blocks as the longest sequence has.
        max_len: Tokens of the longest sequence, the new one included.
        is_masked: Whether their lengths differ.
    """

    positions: torch.Tensor
    tables: torch.Tensor
    max_len: int
    is_masked: bool

    def to(self, device: torch.device) -> "DecodeInputs":
        """The same on another device."""
        return replace(self, positions=self.positions.to(device), tables=self.tables.to(device))


class ImageAttention:
    """Cross-attention of a decode step's sequences with images, for as long as these sequences are the same ones."""

    def __init__(
        self, kv_cache: KVCache, tables: torch.Tensor, num_columns: int, visible: torch.Tensor | None
    ) -> None:
        """Build it.

        Args:
            kv_cache: The KV cache.
            tables: Block ids of the images, (sequences, blocks).
            num_columns: How many columns of these to read.
            visible: Which of them hold vision tokens, (sequences, num_columns); None where all do.
        """
        self.num_seqs = len(tables)
        self._reader = BlockReader(kv_cache.vision, tables)
        self._num_columns = num_columns
        self._mask = None if visible is None else _additive_mask(visible, kv_cache.vision.dtype)
        num_bytes = tables.numel() * kv_cache.num_bytes // kv_cache.num_blocks
        self._kept: dict[int, torch.Tensor] | None = {} if num_bytes <= _MAX_KEPT_BYTES else None

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """See `Attention.cross_attention`."""
        kv = None if self._kept is None else self._kept.get(layer)
        if kv is None:
            kv = self._reader.read(layer)[..., : self._num_columns, :]
            if self._kept is not None:
                self._kept[layer] = kv
        keys, values = kv
        return _attend_one(query, keys, values, self._mask)


class DecodeAttention:
    """Attention of a decode step whose lengths are known, in torch."""

    image_row_mask = None

    def __init__(self, kv_cache: KVCache, inputs: DecodeInputs, images: ImageAttention | None) -> None:
        size = kv_cache.layout.block_size
        self._num_kv_heads = kv_cache.layout.num_kv_heads
        block_ids = inputs.tables.gather(1, inputs.positions[:, None] // size)[:, 0]
        self._writer = BlockWriter(kv_cache, block_ids, inputs.positions % size)
        self._reader = BlockReader(kv_cache.tokens, inputs.tables)
        self._max_len, self._images = inputs.max_len, images
        self._mask: torch.Tensor | None = None
        if inputs.is_masked:
            columns = torch.arange(inputs.max_len, device=inputs.positions.device)
            self._mask = _additive_mask(columns <= inputs.positions[:, None], kv_cache.tokens.dtype)
        self.image_rows = None if images is None else slice(0, images.num_seqs)

    def self_attention(self, layer: int, heads: torch.Tensor, rope: Rope) -> torch.Tensor:
        """See `Attention`."""
        self._writer.write(layer, heads, rope)
        keys, values = self._reader.read(layer)[..., : self._max_len, :]
        query = heads[:, : -2 * self._num_kv_heads]
        return _attend_one(query, keys, values, self._mask)

    def cross_attention(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """See `Attention`."""
        if self._images is None:
            raise AssertionError("no sequence attends to images")
        return self._images.attend(layer, query)


class PagedDecodeAttention:
    """Attention of a decode step whose lengths are known to the device only, so that one CUDA graph serves all."""

    def __init__(
        self,
        kv_cache: KVCache,
        tables: BlockTables,
        kernels: Kernels,
        positions: torch.Tensor,
        rows: torch.Tensor,
        *,
        has_images: bool,
    ) -> None:
        """Take the position of each sequence's new token, (sequences,), and its row of the block tables, (sequences,)."""
        size = kv_cache.layout.block_size
        self._kv_cache, self._tables, self._paged_attention = kv_cache, tables, kernels.paged_attention
        self._rows, self._lens = rows, positions + 1
        self._writer = BlockWriter(
            kv_cache, tables.tokens[rows, positions // size], positions % size, kernels
        )
        self.image_rows = slice(None) if has_images else None
        self._vision_lens = tables.num_vision_columns[rows]
        self.image_row_mask = self._vision_lens[:, None] > 0

    def self_attention(self, layer: int, heads: torch.Tensor, rope: Rope) -> torch.Tensor:
        """See `Attention`."""
        self._writer.write(layer, heads, rope)
        query = heads[:, : -2 * self._kv_cache.layout.num_kv_heads]
        cache = self._kv_cache.tokens[:, layer]
        return self._paged_attention(query, cache, self._tables.tokens, self._rows, self._lens)

    def cross_attention(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """See `Attention`."""
        tables, cache = self._tables, self._kv_cache.vision[:, layer]
        return self._paged_attention(
            query, cache, tables.vision, self._rows, self._vision_lens, tables.vision_counts
        )


def _split(heads: torch.Tensor, num_kv_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries (tokens, num_heads, head_dim), and keys and values (tokens, 2, num_kv_heads, head_dim)."""
    num_heads = heads.shape[1] - 2 * num_kv_heads
    kv = heads[:, num_heads:]
    return heads[:, :num_heads], kv.view(len(kv), 2, num_kv_heads, kv.shape[2])


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    is_causal: bool,
) -> torch.Tensor:
    """Grouped-query attention of several tokens of a sequence.

    Query (tokens, num_heads, head_dim), keys and values (num_kv_heads, columns, head_dim) -> the shape of query.
    """
    output = functional.scaled_dot_product_attention(
        *(query.transpose(0, 1)[None], keys[None], values[None], mask), is_causal=is_causal, enable_gqa=True
    )
    return output[0].transpose(0, 1)


def _attend_one(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Grouped-query attention of a token of each sequence: the heads that share a key head are the queries.

    Query (sequences, num_heads, head_dim), keys and values (sequences, num_kv_heads, columns, head_dim), mask
    (sequences, 1, 1, columns) -> the shape of query.
    """
    num_seqs, num_heads, head_dim = query.shape
    grouped = query.reshape(num_seqs, keys.shape[1], -1, head_dim)
    output = functional.scaled_dot_product_attention(grouped, keys, values, mask)
    return output.reshape(num_seqs, num_heads, head_dim)


def _lower_right_mask(num_tokens: int, num_columns: int, device: torch.device) -> torch.Tensor | None:
    """Causal mask of the last `num_tokens` of a sequence. NVIDIA GPUs take it without a tensor of all pairs."""
    if num_tokens == 1:
        return None
    if device.type == "cuda":
        from torch.nn.attention.bias import CausalBias, CausalVariant  # noqa: PLC0415 - it imports torch's compiler

        return CausalBias(CausalVariant.LOWER_RIGHT, num_tokens, num_columns)
    return torch.ones(num_tokens, num_columns, dtype=torch.bool, device=device).tril(num_columns - num_tokens)


def _additive_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where visible, else minus infinity: (sequences, columns) -> (sequences, 1, 1, columns)."""
    mask = torch.zeros((), dtype=dtype, device=visible.device).masked_fill(~visible, float("-inf"))
    return mask[:, None, None]

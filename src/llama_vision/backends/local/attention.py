"""Attention over the KV cache, in torch: of a prefill pass, several prompts at once, and of a decode step."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch.nn import functional

from llama_vision.backends.local.block_tables import BlockTables
from llama_vision.backends.local.encoder_cache import EncodedImage
from llama_vision.backends.local.kernels import TORCH_KERNELS, Kernels
from llama_vision.backends.local.kv_cache import KVCache

_MAX_KEPT_BYTES = 2**26
"""Images' keys and values that are copied out of their blocks once, and not in every step: a small model's."""

_MAX_COPIED_BYTES = 2**26
"""Keys and values of a layer that are copied out of their blocks to compute the attention of several sequences at once."""

_T = TypeVar("_T")

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
    """Attention of a prefill pass: each chunk attends to its own sequence, without a mask where it can do without.

    Neighbours that are alike, such as captions' prompts, are computed at once.
    """

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
        self._chunks = [_ChunkAttention(kv_cache, alike) for alike in _alike_chunks(kv_cache, chunks)]
        segments = [segment for chunk in chunks for segment in chunk.segments]
        self._segments = [_SegmentAttention(kv_cache, alike) for alike in _alike_segments(kv_cache, segments)]
        self.image_rows = _image_rows(chunks, device)

    def self_attention(self, layer: int, heads: torch.Tensor, rope: Rope) -> torch.Tensor:
        """See `Attention`."""
        self._writer.write(layer, heads, rope)
        return _attend_parts(self._chunks, layer, heads)

    def cross_attention(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """See `Attention`."""
        return _attend_parts(self._segments, layer, query)


class _ChunkAttention:
    """Causal self-attention of chunks of equal positions: to their own tokens, and to those before in the KV cache."""

    def __init__(self, kv_cache: KVCache, chunks: Sequence[PrefillChunk]) -> None:
        num_tokens, self._stop = len(chunks[0].token_ids), chunks[0].stop
        self._num_chunks, self.num_rows = len(chunks), len(chunks) * num_tokens
        self._num_kv_heads = kv_cache.layout.num_kv_heads
        self._mask: torch.Tensor | None = None
        self._reader: BlockReader | None = None
        if chunks[0].start:
            device, num_blocks = kv_cache.tokens.device, kv_cache.layout.num_blocks(self._stop)
            tables = torch.tensor([chunk.block_ids[:num_blocks] for chunk in chunks], device=device)
            self._reader = BlockReader(kv_cache.tokens, tables)
            self._mask = _lower_right_mask(num_tokens, self._stop, device)

    def attend(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        query, kv = _split(heads, self._num_kv_heads)
        if self._reader is None:
            keys, values = kv.view(self._num_chunks, -1, *kv.shape[1:]).permute(2, 0, 3, 1, 4)
            return _attend(query, keys, values, None, is_causal=True)
        keys, values = self._reader.read(layer)[..., : self._stop, :]
        return _attend(query, keys, values, self._mask, is_causal=False)


class _SegmentAttention:
    """Cross-attention of segments of equal sizes: all to all of their images, without a mask."""

    def __init__(self, kv_cache: KVCache, segments: Sequence[ImageSegment]) -> None:
        self.num_rows = len(segments) * (segments[0].stop - segments[0].start)
        block_ids = [
            [block_id for image in segment.images for block_id in image.blocks.block_ids]
            for segment in segments
        ]
        self._reader = BlockReader(kv_cache.vision, torch.tensor(block_ids, device=kv_cache.vision.device))
        size, images = kv_cache.layout.vision_block_size, segments[0].images
        starts = itertools.accumulate((len(image.blocks.block_ids) * size for image in images), initial=0)
        self._columns = [
            slice(start, start + image.num_vision_tokens)
            for start, image in zip(starts, images, strict=False)
        ]

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        kv = self._reader.read(layer)
        parts = [kv[..., columns, :] for columns in self._columns]
        keys, values = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)
        return _attend(query, keys, values, None, is_causal=False)


def _attend_parts(
    attentions: Sequence[_ChunkAttention] | Sequence[_SegmentAttention], layer: int, rows: torch.Tensor
) -> torch.Tensor:
    """Let each attend for its rows, in order."""
    parts = rows.split_with_sizes([attention.num_rows for attention in attentions])
    outputs = [attention.attend(layer, part) for attention, part in zip(attentions, parts, strict=True)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _alike_chunks(kv_cache: KVCache, chunks: Sequence[PrefillChunk]) -> list[list[PrefillChunk]]:
    # Only what the blocks hold already is copied.
    return _alike(
        chunks,
        lambda chunk: (chunk.start, len(chunk.token_ids)),
        lambda chunk: chunk.stop * kv_cache.token_bytes_per_layer if chunk.start else 0,
    )


def _alike_segments(kv_cache: KVCache, segments: Sequence[ImageSegment]) -> list[list[ImageSegment]]:
    return _alike(
        segments,
        lambda segment: (
            segment.stop - segment.start,
            *(image.num_vision_tokens for image in segment.images),
        ),
        lambda segment: (
            kv_cache.token_bytes_per_layer * sum(image.num_vision_tokens for image in segment.images)
        ),
    )


def _alike(
    items: Sequence[_T], key: Callable[[_T], tuple[int, ...]], num_bytes: Callable[[_T], int]
) -> list[list[_T]]:
    """Group neighbours with the same key, as many as fit into `_MAX_COPIED_BYTES`."""
    groups: list[list[_T]] = []
    for _, group in itertools.groupby(items, key):
        alike = list(group)
        size = max(1, _MAX_COPIED_BYTES // (num_bytes(alike[0]) or 1))
        groups += (alike[start : start + size] for start in range(0, len(alike), size))
    return groups


def _image_rows(chunks: Sequence[PrefillChunk], device: torch.device) -> torch.Tensor | slice | None:
    """See `Attention.image_rows`."""
    firsts = itertools.accumulate((len(chunk.token_ids) for chunk in chunks), initial=0)
    rows = [
        first + position - chunk.start
        for first, chunk in zip(firsts, chunks, strict=False)
        for segment in chunk.segments
        for position in range(segment.start, segment.stop)
    ]
    if not rows:
        return None
    is_all = len(rows) == sum(len(chunk.token_ids) for chunk in chunks)
    return slice(None) if is_all else torch.tensor(rows, device=device)


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
    """Grouped-query attention of several tokens of each sequence.

    Query (sequences x tokens, num_heads, head_dim), keys and values (sequences, num_kv_heads, columns, head_dim) -> the
    shape of query.
    """
    by_sequence = query.view(len(keys), -1, *query.shape[1:]).transpose(1, 2)
    output = functional.scaled_dot_product_attention(
        by_sequence, keys, values, mask, is_causal=is_causal, enable_gqa=True
    )
    return output.transpose(1, 2).flatten(0, 1)


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

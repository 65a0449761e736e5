"""Model inputs: what sequences give a prefill and a decode forward pass."""

import itertools
from collections.abc import Sequence as AbstractSequence

import torch

from llama_vision.backends.local.attention import DecodeInputs, ImageAttention, ImageSegment, PrefillChunk
from llama_vision.backends.local.block_allocator import BlockTable
from llama_vision.backends.local.block_tables import BlockTables
from llama_vision.backends.local.kv_cache import BlockLayout, KVCache
from llama_vision.backends.local.sequence import Sequence


def prefill_chunk(seq: Sequence, num_tokens: int) -> PrefillChunk:
    """Build the next chunk of a sequence's prefill."""
    start = seq.num_computed_tokens
    token_ids = seq.prefill_token_ids[start : start + num_tokens]
    table = seq.running_block_table
    return PrefillChunk(token_ids, start, table.block_ids, image_segments(seq, start, start + num_tokens))


def verification_chunk(seq: Sequence, draft: list[int]) -> PrefillChunk:
    """Build the chunk of a sequence's last token and draft tokens after it."""
    start, token_ids = seq.num_computed_tokens, [seq.output_token_ids[-1], *draft]
    segments = image_segments(seq, start, start + len(token_ids))
    return PrefillChunk(token_ids, start, seq.running_block_table.block_ids, segments)


def image_segments(seq: Sequence, start: int, stop: int) -> tuple[ImageSegment, ...]:
    """Divide tokens `start` to `stop`, exclusive, by the images that they attend to."""
    prompt, table = seq.prompt, seq.running_block_table
    spans = prompt.visible_spans(start, stop)
    ends = {bound for span in spans for bound in (span.start, span.end) if start < bound < stop}
    bounds = sorted(ends - {len(prompt.token_ids)} | {start, stop})
    segments: list[ImageSegment] = []
    for first, end in itertools.pairwise(bounds):
        keys = [span.image.key for span in prompt.visible_spans(first, first + 1)]
        if keys:
            segments.append(ImageSegment(first, end, tuple(table.images[key] for key in keys)))
    return tuple(segments)


def decode_inputs(seqs: AbstractSequence[Sequence], tables: BlockTables, layout: BlockLayout) -> DecodeInputs:
    """Build the inputs of a decode step."""
    device = tables.tokens.device
    lens = [seq.num_computed_tokens + 1 for seq in seqs]
    rows = torch.tensor([seq.running_block_table.row for seq in seqs], device=device)
    return DecodeInputs(
        positions=torch.tensor(lens, device=device) - 1,
        tables=tables.tokens[rows, : layout.num_blocks(max(lens))].long(),
        max_len=max(lens),
        is_masked=min(lens) < max(lens),
    )


def image_attention(
    seqs: AbstractSequence[BlockTable], tables: BlockTables, kv_cache: KVCache
) -> ImageAttention:
    """Build the cross-attention of a decode step from the block tables of its sequences with images."""
    size = kv_cache.layout.vision_block_size
    rows = torch.tensor([table.row for table in seqs], device=tables.vision.device)
    images = [table.output_images for table in seqs]
    num_blocks = max(sum(len(image.blocks.block_ids) for image in its) for its in images)
    block_ids = tables.vision[rows, :num_blocks].long().to(kv_cache.device)
    lens = {tuple(image.num_vision_tokens for image in its) for its in images}
    if len(lens) == 1 and len(images[0]) == 1:  # without gaps
        return ImageAttention(kv_cache, block_ids, images[0][0].num_vision_tokens, None)
    counts = tables.vision_counts[rows, :num_blocks, None].to(kv_cache.device)
    visible = (torch.arange(size, device=counts.device) < counts).flatten(1)
    return ImageAttention(kv_cache, block_ids, num_blocks * size, visible)

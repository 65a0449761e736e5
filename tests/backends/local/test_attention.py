"""Prompts that are alike are attended at once, as each is alone."""

from itertools import pairwise

import pytest
import torch

from llama_vision.backends.local import attention
from llama_vision.backends.local.attention import ImageSegment, PrefillAttention, PrefillChunk
from llama_vision.backends.local.block_pool import BlockPool
from llama_vision.backends.local.encoder_cache import EncoderCache
from llama_vision.backends.local.kv_cache import BlockLayout, KVCache

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE = 6, 2, 16, 16
LAYOUT = BlockLayout((0, 2), (1,), NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, vision_block_size=2 * BLOCK_SIZE)


class Prompts:
    """Chunks in one KV cache, whose blocks hold random numbers."""

    def __init__(self):
        self.kv_cache = KVCache(LAYOUT, 200, torch.float32, torch.device("cpu"))
        self.kv_cache.tokens.copy_(torch.randn(self.kv_cache.tokens.shape))
        self._pool = BlockPool(200)
        self._images = EncoderCache(self._pool, None)

    def chunk(self, start, num_tokens, *segments):
        """A chunk; a segment is where it starts and ends, and its images' vision tokens."""
        block_ids = self._pool.allocate(LAYOUT.num_blocks(start + num_tokens))
        its = (ImageSegment(begin, end, tuple(map(self._image, sizes))) for begin, end, *sizes in segments)
        return PrefillChunk([0] * num_tokens, start, block_ids, tuple(its))

    def _image(self, num_vision_tokens):
        block_ids = self._pool.allocate(LAYOUT.num_vision_blocks(num_vision_tokens))
        return self._images.add(bytes(block_ids), block_ids, num_vision_tokens)


ALIKE = {
    "text": [(0, 9)] * 4,
    "one token": [(0, 1)] * 3 + [(7, 1)] * 3,
    "behind a prefix": [(0, 9)] * 2 + [(37, 9)] * 3 + [(21, 9), (37, 9)],
    "images": [(0, 9, (4, 9, 40))] * 3 + [(0, 9, (4, 9, 65))] * 2,
    "two images": [(0, 30, (4, 10, 40), (10, 30, 40, 65))] * 3,
    "images in some": [(5, 12, (6, 17, 33)), (5, 12), (5, 12, (6, 17, 33)), (5, 12, (5, 17, 33))],
}


@pytest.mark.parametrize("max_bytes", [1, 2 * 37 * 256, 2**26], ids=["alone", "few", "all"])
@pytest.mark.parametrize("kind", ALIKE)
def test_chunks_that_are_alike_are_attended_as_each_alone(kind, max_bytes, monkeypatch):
    torch.manual_seed(0)
    prompts = Prompts()
    chunks = [prompts.chunk(*one) for one in ALIKE[kind]]
    ends = [0]
    for chunk in chunks:
        ends.append(ends[-1] + len(chunk.token_ids))
    heads = torch.randn(ends[-1], NUM_HEADS + 2 * NUM_KV_HEADS, HEAD_DIM)
    rope = torch.randn(2, ends[-1], HEAD_DIM).unbind()
    monkeypatch.setattr(attention, "_MAX_COPIED_BYTES", max_bytes)
    together = PrefillAttention(prompts.kv_cache, chunks)
    found = together.self_attention(1, heads.clone(), rope)
    query = torch.randn(ends[-1], NUM_HEADS, HEAD_DIM)
    has_images = together.image_rows is not None
    seen = together.cross_attention(0, query[together.image_rows]) if has_images else query[:0]
    num_seen = 0
    for chunk, (start, end) in zip(chunks, pairwise(ends), strict=True):
        alone = PrefillAttention(prompts.kv_cache, [chunk])
        expected = alone.self_attention(1, heads[start:end].clone(), tuple(part[start:end] for part in rope))
        torch.testing.assert_close(found[start:end], expected)
        if alone.image_rows is not None:
            expected = alone.cross_attention(0, query[start:end][alone.image_rows])
            torch.testing.assert_close(seen[num_seen : num_seen + len(expected)], expected)
            num_seen += len(expected)
    assert num_seen == len(seen)


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [(2**26, [2, 3, 1, 1]), (2 * 46 * 256, [2, 2, 1, 1, 1]), (256, [2, 1, 1, 1, 1, 1])],
)
def test_what_is_copied_out_of_blocks_at_once_is_bounded(max_bytes, expected, monkeypatch):
    """The first two begin at 0, so nothing is copied for them; the others are of 46 and 30 tokens."""
    monkeypatch.setattr(attention, "_MAX_COPIED_BYTES", max_bytes)
    prompts = Prompts()
    chunks = [prompts.chunk(*one) for one in ALIKE["behind a prefix"]]
    assert prompts.kv_cache.token_bytes_per_layer == 256
    groups = attention._alike_chunks(prompts.kv_cache, chunks)
    assert [len(group) for group in groups] == expected
    assert [chunk for group in groups for chunk in group] == chunks

"""Blocks of the KV cache: none is in two places unless it is shared, and all come back."""

import collections
import random
from types import SimpleNamespace

import pytest
import torch

from llama_vision import ChatRequest, Image, Message, Text
from llama_vision.backends.local.block_allocator import BlockAllocator
from llama_vision.backends.local.block_pool import NULL_BLOCK, BlockPool
from llama_vision.backends.local.encoder_cache import EncoderCache
from llama_vision.backends.local.image_input import ImageInput
from llama_vision.backends.local.kv_cache import KVCache, block_layout
from llama_vision.backends.local.prefix_cache import PrefixCache
from llama_vision.backends.local.sequence import ImageSpan, Sequence, TokenizedPrompt

REQUEST = ChatRequest("tiny", (Message("user", (Text("Hi"),)),))


def layout_of(num_layers, cross_layers):
    config = SimpleNamespace(
        num_hidden_layers=num_layers,
        cross_attention_layers=cross_layers,
        num_key_value_heads=1,
        hidden_size=2,
        num_attention_heads=1,
    )
    return block_layout(config)


@pytest.mark.parametrize(
    ("num_layers", "cross_layers", "sizes"),
    [
        (40, [3, 8, 13, 18, 23, 28, 33, 38], (16, 64)),  # the 11B
        (100, list(range(3, 100, 5)), (16, 64)),  # the 90B
        (6, [1, 3], (16, 32)),
        (5, [1, 3], (16, 24)),
        (12, [0, 3, 5, 7, 9], (80, 112)),
    ],
)
def test_a_block_holds_as_much_of_an_image_as_of_text(num_layers, cross_layers, sizes):
    layout = layout_of(num_layers, cross_layers)
    assert (layout.block_size, layout.vision_block_size) == sizes
    cache = KVCache(layout, 3, torch.float32, torch.device("cpu"))
    assert cache.tokens.numel() == cache.vision.numel() == 3 * layout.num_elements


def test_the_null_block_is_zero_whatever_the_memory_held():
    torch.use_deterministic_algorithms(True)  # fills empty tensors with NaN
    try:
        cache = KVCache(layout_of(3, [1]), 3, torch.float32, torch.device("cpu"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert not cache.tokens[NULL_BLOCK].any()
    assert cache.tokens[1:].isnan().all()  # untouched
    cache.zero_blocks([2])
    assert not cache.tokens[2].any()
    assert cache.tokens[1].isnan().all()


class Pool:
    """An allocator without a model: what it would compute is the token's id, in the place of its keys and values."""

    def __init__(self, num_blocks, *, prefix_blocks=None, image_blocks=None, max_num_seqs=6):
        self.layout = layout_of(3, [1])
        self.cache = KVCache(self.layout, num_blocks + 1, torch.float32, torch.device("cpu"))
        self.pool = BlockPool(num_blocks + 1)
        self.prefixes = PrefixCache(self.pool, self.layout.block_size, prefix_blocks)
        self.images = EncoderCache(self.pool, image_blocks)
        self.allocator = BlockAllocator(
            [self.cache],
            self.pool,
            self.prefixes,
            self.images,
            max_num_seqs=max_num_seqs,
            max_model_len=400,
            device=torch.device("cpu"),
        )
        self.running = []

    def sequence(self, token_ids, *images):
        """A sequence with images at its beginning, each given by its number."""
        spans = tuple(
            ImageSpan(
                ImageInput(bytes([number]), Image(b"", "image/png"), 1, 20 + 30 * number),
                place,
                len(token_ids),
            )
            for place, number in enumerate(images)
        )
        seq = Sequence(REQUEST, lambda output: None)
        seq.prompt = TokenizedPrompt(list(token_ids), spans)
        return seq

    def add(self, seq, num_reserved=0):
        if not self.allocator.allocate(seq, num_reserved):
            return False
        self.running.append(seq)
        for image in seq.block_table.images.values():
            image.is_encoded = True
        return True

    def compute(self, seq, num_tokens):
        keys = [*seq.prompt.cache_key, *seq.output_token_ids]
        for position in range(seq.num_computed_tokens, seq.num_computed_tokens + num_tokens):
            self.slot(seq, position)[:] = hash(keys[position]) % 2**20
        seq.num_computed_tokens += num_tokens

    def slot(self, seq, position):
        block, offset = divmod(position, self.layout.block_size)
        return self.cache.tokens[seq.block_table.block_ids[block], :, :, :, offset]

    def remove(self, seq, *, cached=True):
        self.running.remove(seq)
        if cached:
            self.allocator.cache_prefix(seq, is_complete=True)
        self.allocator.free(seq)

    def check(self):
        """Every block is free, cached or in use, and what sequences computed is where they read it."""
        users = collections.Counter()
        images = {}
        for seq in self.running:
            table = seq.block_table
            users.update(table.block_ids)
            images |= {image: image.blocks.block_ids for image in table.images.values()}
            row = self.allocator.tables.tokens[table.row].tolist()
            assert row == table.block_ids + [NULL_BLOCK] * (len(row) - len(table.block_ids))
            shared = {node.block_id for node in table.prefix_nodes}
            assert all(users[block] == 1 for block in table.block_ids if block not in shared)
            keys = [*seq.prompt.cache_key, *seq.output_token_ids][: seq.num_computed_tokens]
            for position, key in enumerate(keys):
                assert (self.slot(seq, position) == hash(key) % 2**20).all()
        used = [*users, *(block for blocks in images.values() for block in blocks)]
        assert len(used) == len(set(used))
        assert NULL_BLOCK not in used
        assert len(used) + self.pool.num_available == self.pool.num_blocks


def test_random_sequences_share_blocks_and_give_all_back():
    chance = random.Random(5)
    pool = Pool(24)
    beginnings = [[chance.randrange(9) for _ in range(length)] for length in (40, 64, 90)]
    shared = refused = 0
    for _ in range(600):
        action = chance.random()
        if action < 0.4 and len(pool.running) < 6:
            beginning = chance.choice(beginnings)
            text = [
                *beginning[: chance.randrange(30, len(beginning) + 1)],
                *(chance.randrange(9) for _ in range(chance.randrange(1, 30))),
            ]
            seq = pool.sequence(text, *chance.choice([(), (), (), (1,), (1, 2)]))
            if pool.add(seq, chance.choice([0, 3])):
                shared += seq.num_computed_tokens > 0
            else:
                refused += 1
        elif pool.running:
            seq = chance.choice(pool.running)
            if left := seq.num_remaining_prefill_tokens:
                pool.compute(seq, chance.randint(1, left))
                pool.allocator.cache_prefix(seq)
                if not seq.num_remaining_prefill_tokens:
                    seq.output_token_ids.append(chance.randrange(9))
            elif action < 0.9 and len(seq.output_token_ids) < 90 and pool.allocator.append_slots(seq, 1):
                pool.compute(seq, 1)
                seq.output_token_ids.append(chance.randrange(9))
            else:
                pool.remove(seq, cached=chance.random() < 0.8)
        pool.check()
    for seq in list(pool.running):
        pool.remove(seq)
    pool.check()
    assert pool.pool.num_available == 24
    assert shared > 20
    assert refused > 5


def run_to_end(pool, seq):
    assert pool.add(seq)
    pool.compute(seq, seq.num_remaining_prefill_tokens)
    pool.allocator.cache_prefix(seq)
    return seq


def test_running_sequences_share_the_blocks_of_their_beginning():
    pool = Pool(40)
    first = run_to_end(pool, pool.sequence(range(60)))
    second = run_to_end(pool, pool.sequence([*range(50), 7, 7]))
    assert second.block_table.block_ids[:3] == first.block_table.block_ids[:3]
    assert (
        second.block_table.block_ids[3] != first.block_table.block_ids[3]
    )  # 50 is no multiple of 16: copied
    assert 40 - pool.pool.num_available == 5
    pool.check()
    pool.remove(first)
    pool.check()


def test_sequences_computed_side_by_side_end_up_with_one_copy():
    pool = Pool(40)
    both = [pool.sequence(range(60)) for _ in range(2)]
    for seq in both:
        pool.add(seq)
    for seq in both:
        pool.compute(seq, 60)
        pool.allocator.cache_prefix(seq)
    assert both[0].block_table.block_ids[:3] == both[1].block_table.block_ids[:3]
    pool.check()
    assert 40 - pool.pool.num_available == 5


def test_an_image_stands_once_however_many_sequences_attend_to_it():
    pool = Pool(40)
    for number in range(5):
        run_to_end(pool, pool.sequence([number] * 20, 1))
    (image,) = {image for seq in pool.running for image in seq.block_table.images.values()}
    assert image.blocks.ref_count == 5
    assert 40 - pool.pool.num_available == 5 * 2 + len(image.blocks.block_ids)
    for seq in list(pool.running):
        pool.remove(seq)
    assert pool.images.num_vision_tokens(bytes([1])) == 50
    assert pool.pool.num_available == 40


def test_the_block_table_of_images_tells_how_full_each_block_is():
    pool = Pool(40)
    seq = run_to_end(pool, pool.sequence(range(20), 1, 2))  # 50 and 80 vision tokens, 32 of them in a block
    tables, row = pool.allocator.tables, seq.block_table.row
    blocks = [block for image in seq.block_table.output_images for block in image.blocks.block_ids]
    assert tables.vision[row, :6].tolist() == [*blocks, NULL_BLOCK]
    assert tables.vision_counts[row, :6].tolist() == [32, 18, 32, 32, 16, 0]
    assert tables.num_vision_columns[row] == 4 * 32 + 16
    pool.remove(seq)
    assert not any(
        table[row].any() for table in (tables.vision, tables.vision_counts, tables.num_vision_columns)
    )


@pytest.mark.parametrize("number", [0, 1, 3])
def test_caches_keep_no_more_than_they_may(number):
    pool = Pool(60, prefix_blocks=number, image_blocks=number)
    for start in range(4):
        run_to_end(pool, pool.sequence(range(start * 100, start * 100 + 70), start))
    for seq in list(pool.running):
        pool.remove(seq)
        assert pool.images.num_unused_blocks <= number
    pool.check()
    kept = pool.prefixes.match(pool.sequence([*range(300, 370), 1], 3).prompt.cache_key)
    # The last to be evicted are the first blocks.
    assert kept.num_tokens == (number * 16 if number * 16 >= 32 else 0)


def test_what_was_not_used_for_longest_is_evicted_first_images_or_text():
    pool = Pool(20)
    for number in (1, 0):
        pool.remove(run_to_end(pool, pool.sequence(range(number * 100, number * 100 + 40), number)))
    assert pool.pool.num_available == 20
    pool.remove(run_to_end(pool, pool.sequence(range(100, 140), 1)))  # used again
    assert pool.add(pool.sequence(range(900, 1140)))
    assert pool.images.num_vision_tokens(bytes([0])) is None
    assert pool.images.num_vision_tokens(bytes([1])) == 50
    assert pool.prefixes.match(pool.sequence([*range(100, 140), 1], 1).prompt.cache_key).num_tokens == 40


def test_the_last_block_of_a_full_pool_can_be_had():
    """To copy a cached block takes one more for a moment: a sequence as large as the pool does without."""
    pool = Pool(5)
    pool.remove(run_to_end(pool, pool.sequence(range(70))))
    again = pool.sequence([*range(70), *range(10)])
    assert pool.add(again)
    assert again.num_computed_tokens == 64
    pool.check()


def test_a_sequence_that_does_not_fit_changes_nothing():
    pool = Pool(10)
    pool.remove(run_to_end(pool, pool.sequence(range(70), 1)))
    assert not pool.add(pool.sequence([*range(70), *range(200)], 1))
    assert pool.pool.num_available == 10
    again = pool.sequence([*range(70), 1], 1)
    assert pool.add(again)
    assert again.num_computed_tokens == 70

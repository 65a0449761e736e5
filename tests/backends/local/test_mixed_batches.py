"""A thousand batches agree with transformers, in float32 and in bfloat16."""

import functools
import random
from collections import defaultdict

import pytest
import torch

from llama_vision.backends.local import engine as engine_module
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.guided_decoding import unpack_bitmask
from llama_vision.backends.local.model_loader import load_model
from tests.hugging_face import generate_scored
from tests.local_engine import prepare
from tests.mixed_requests import mixed

NUM_LIKELIEST = 5
NUM_REQUESTS = 96


@pytest.fixture
def likeliest(monkeypatch):
    """The likeliest tokens of each place, of those that the grammar allows, by the sequence's sampler."""
    found, sample = defaultdict(list), engine_module.sample

    def scored(logits, samplers):
        for row, sampler in zip(logits, samplers, strict=True):
            if sampler.is_guided:
                bitmask = sampler.grammar_matcher.token_bitmask()
                row = row.masked_fill(torch.as_tensor(~unpack_bitmask([bitmask], len(row))[0]), float("-inf"))  # noqa: PLW2901 - masked
            found[sampler].append(row.topk(NUM_LIKELIEST).indices.tolist())
        return sample(logits, samplers)

    monkeypatch.setattr(engine_module, "sample", scored)
    return found


@functools.cache
def load(dtype):
    return load_model("tiny", LocalSettings(dtype=dtype))


@functools.cache
def expected(dtype, seed):
    """What transformers replies, and its likeliest tokens at each place."""
    token_ids, scores = generate_scored(load(dtype), mixed(seed))
    return token_ids, scores.topk(NUM_LIKELIEST).indices.tolist()


def run(engine, requests, chance):
    waiting = [prepare(engine, request) for request in requests]
    seqs = list(waiting)
    while waiting or engine.num_running:
        count = min(engine.num_free, chance.choice([0, 1, 2, 5]))
        engine.add_sequences(waiting[:count])
        del waiting[:count]
        engine.step()
    return seqs


def agrees(ours, our_likeliest, theirs, their_likeliest):
    """vLLM's rule: at the first token that differs, each one's choice is among the other's likeliest."""
    for place, (our_token, their_token) in enumerate(zip(ours, theirs, strict=False)):
        if our_token != their_token:
            return our_token in their_likeliest[place] and their_token in our_likeliest[place]
    # The engine ends where a grammar does, transformers with the token after that.
    return len(theirs) - len(ours) in (0, 1) and load("float32").eos_token_ids.issuperset(theirs[len(ours) :])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_a_hundred_mixed_batches_agree_with_transformers(part, likeliest):
    chance, dtype = random.Random(part), "bfloat16" if part % 2 else "float32"
    settings = LocalSettings(
        max_batch_size=chance.choice([2, 4, 8]), max_model_len=600, kv_cache_bytes=90 * 49152
    )
    engine = Engine(load(dtype), settings)
    num_equal = num_seqs = 0
    for _ in range(100):
        seeds = [chance.randrange(NUM_REQUESTS) for _ in range(chance.randint(1, 5))]
        for seed, seq in zip(seeds, run(engine, [mixed(seed) for seed in seeds], chance), strict=True):
            theirs, their_likeliest = expected(dtype, seed)
            ours = seq.output_token_ids
            ours_likeliest = likeliest.pop(seq.sampler)
            assert len(ours_likeliest) == len(ours)
            assert agrees(ours, ours_likeliest, theirs, their_likeliest), (seed, ours, theirs)
            num_seqs += 1
            num_equal += ours == theirs[: len(ours)]
    assert num_equal > (0.9 if dtype == "bfloat16" else 0.999) * num_seqs

"""Sampling: the distributions of transformers' warpers, with a random generator per request."""

import collections
import random

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llama_vision.backends.local.sampler import Sampler, sample
from llama_vision.core.request import SamplingParams

CPU = torch.device("cpu")
VOCAB_SIZE = 24
LLAMAS_DEFAULTS = SamplingParams(temperature=0.6, top_p=0.9)


def logits_of(seed):
    return torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 3


def sampler(prompt_token_ids=(), defaults=None, **params):
    return Sampler(SamplingParams(**params), defaults, None, prompt_token_ids, CPU)


def sampled(logits, count, **params):
    """Sample from the same logits again and again."""
    one = sampler(temperature=params.pop("temperature", 1.0), seed=params.pop("seed", 4), **params)
    return collections.Counter(sample(logits[None], [one])[0] for _ in range(count))


FILTERS = [
    {"top_k": 0},
    {"top_k": 5},
    {"top_k": 0, "top_p": 0.7},
    {"top_k": 0, "min_p": 0.2},
    {"top_k": 9, "top_p": 0.8, "min_p": 0.1},
    {"top_k": 9, "top_p": 0.9, "min_p": 0.05, "temperature": 2.5},
    {"top_k": 0, "top_p": 0.01},
    {"top_k": 1},
]


@pytest.mark.parametrize("params", FILTERS, ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow_beyond(5)
def test_probabilities_are_those_of_transformers(params, seed):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.get("temperature", 1.0))])
    if params["top_k"]:
        warpers.append(TopKLogitsWarper(params["top_k"]))
    warpers.append(TopPLogitsWarper(params.get("top_p", 1.0)))
    warpers.append(MinPLogitsWarper(params.get("min_p", 0.0)))
    probs = warpers(None, logits_of(seed)[None])[0].softmax(-1)
    count = 3000
    found = sampled(logits_of(seed), count, **params)
    for token in range(VOCAB_SIZE):
        expected = float(probs[token])
        allowed_error = 5 * (expected * (1 - expected) / count) ** 0.5
        assert abs(found[token] / count - expected) <= allowed_error, token


def test_the_default_top_k_is_that_of_transformers():
    flat = torch.arange(200.0) / 1000
    assert min(sampled(flat, 2000)) == 150
    assert min(sampled(flat, 2000, top_k=0)) < 20


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    prompt, output = (
        [3, 7, 7, VOCAB_SIZE],
        [11, 2],
    )  # the last of the prompt is `<|image|>`, which has no logit
    one = sampler(prompt, temperature=0, repetition_penalty=penalty)
    for token in output:
        assert one.accept_token(token) is False
    expected = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([[3, 7, 7, 11, 2]]), logits_of(1)[None].clone()
    )[0]
    assert torch.equal(one.apply_repetition_penalty(logits_of(1)), expected)
    assert sample(logits_of(1)[None], [one]) == [int(expected.argmax())]


def test_the_batch_does_not_change_what_a_seed_samples():
    logits = torch.stack([logits_of(seed) for seed in range(6)])
    alone = [[sample(logits[[row]], [one])[0] for _ in range(20)] for row, one in enumerate(six_samplers())]
    samplers = six_samplers()
    together = [[] for _ in samplers]
    chance = random.Random(1)
    while rows := [row for row in range(6) if len(together[row]) < 20]:
        batch = chance.sample(rows, chance.randint(1, len(rows)))
        for row, token in zip(batch, sample(logits[batch], [samplers[row] for row in batch]), strict=True):
            together[row].append(token)
    assert together == alone
    assert together[0] != together[2]


def six_samplers():
    filters = [{}, {}, {}, {"top_p": 0.7}, {"top_k": 0, "min_p": 0.1}, {"top_k": 3, "top_p": 0.9}]
    return [
        sampler(temperature=2.0, seed=seed, **its)
        for seed, its in zip((1, 1, 2, 2, 3, 4), filters, strict=True)
    ]


@pytest.mark.parametrize("seed", [2**64, 2**70 + 3, -(2**63) - 1, -(2**100), int("f" * 64, 16)])
def test_a_seed_may_have_any_size(seed):
    logits = logits_of(2)
    assert sampled(logits, 30, seed=seed) == sampled(logits, 30, seed=seed)
    assert sampled(logits, 30, seed=seed) == sampled(logits, 30, seed=seed % 2**64)


@pytest.mark.parametrize("seed", [-1, -5, -(2**63), 2**63, 2**64 - 1])
def test_a_seed_that_torch_takes_is_its_own(seed):
    one = sampler(temperature=1.0, seed=seed)
    probs = logits_of(2).softmax(-1)
    noise = torch.empty_like(probs).exponential_(generator=torch.Generator().manual_seed(seed))
    assert torch.equal(one.exponential_noise(probs), noise)


def test_the_global_generator_is_left_alone_also_without_a_seed():
    before = torch.random.get_rng_state()
    first, second = (sampled(logits_of(2), 30, seed=None) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first != second


@pytest.mark.parametrize(
    ("params", "defaults", "greedy", "temperature", "top_p"),
    [
        ({}, None, True, 1.0, 1.0),
        ({}, LLAMAS_DEFAULTS, False, 0.6, 0.9),
        ({"temperature": 0}, LLAMAS_DEFAULTS, True, 0, 0.9),
        ({"temperature": 0.3}, None, False, 0.3, 1.0),
        ({"top_p": 0.5}, LLAMAS_DEFAULTS, False, 0.6, 0.5),
        ({"top_p": 0.5}, None, True, 1.0, 0.5),
    ],
)
def test_the_users_parameters_come_before_the_models_defaults(params, defaults, greedy, temperature, top_p):
    one = sampler(defaults=defaults, **params)
    assert (one.greedy, one.temperature, one.top_p) == (greedy, temperature, top_p)


class BrokenMatcher:
    is_active = True

    def token_bitmask(self):
        raise RuntimeError("no way on")


def test_a_failing_row_does_not_stop_the_others():
    failing = Sampler(SamplingParams(temperature=0), None, BrokenMatcher(), (), CPU)
    logits = torch.stack([logits_of(seed) for seed in range(3)])
    first, failure, last = sample(logits, [sampler(), failing, sampler()])
    assert (first, last) == (int(logits[0].argmax()), int(logits[2].argmax()))
    assert str(failure) == "no way on"

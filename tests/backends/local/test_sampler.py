"""How a token is chosen: by the filters that transformers has, with luck of one's own."""

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
WORDS = 24
LLAMAS_OWN = SamplingParams(temperature=0.6, top_p=0.9)


def scores_of(seed):
    return torch.randn(WORDS, generator=torch.Generator().manual_seed(seed)) * 3


def chooser(written=(), own=None, **wishes):
    return Sampler(SamplingParams(**wishes), own, None, written, CPU)


def drawn(scores, count, **wishes):
    """Draw with one chooser from the same scores again and again."""
    one = chooser(temperature=wishes.pop("temperature", 1.0), seed=wishes.pop("seed", 4), **wishes)
    return collections.Counter(sample(scores[None], [one])[0] for _ in range(count))


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


@pytest.mark.parametrize("wishes", FILTERS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_shares_are_those_of_transformers(wishes, seed):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(wishes.get("temperature", 1.0))])
    if wishes["top_k"]:
        warpers.append(TopKLogitsWarper(wishes["top_k"]))
    warpers.append(TopPLogitsWarper(wishes.get("top_p", 1.0)))
    warpers.append(MinPLogitsWarper(wishes.get("min_p", 0.0)))
    shares = warpers(None, scores_of(seed)[None])[0].softmax(-1)
    count = 3000
    found = drawn(scores_of(seed), count, **wishes)
    for token in range(WORDS):
        expected = float(shares[token])
        allowed_error = 5 * (expected * (1 - expected) / count) ** 0.5
        assert abs(found[token] / count - expected) <= allowed_error, token


def test_transformers_limit_of_fifty_holds_where_nobody_says_anything():
    flat = torch.arange(200.0) / 1000
    assert min(drawn(flat, 2000)) == 150
    assert min(drawn(flat, 2000, top_k=0)) < 20


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_what_stands_already_is_made_less_likely_as_in_transformers(penalty):
    written, said = [3, 7, 7, WORDS], [11, 2]  # the last of the prompt is `<|image|>`, which has no score
    one = chooser(written, temperature=0, repetition_penalty=penalty)
    for token in said:
        one.record_token(token)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([[3, 7, 7, 11, 2]]), scores_of(1)[None].clone()
    )[0]
    assert torch.equal(one.apply_repetition_penalty(scores_of(1)), expected)
    assert sample(scores_of(1)[None], [one]) == [int(expected.argmax())]


def test_luck_has_nothing_to_do_with_the_company():
    scores = torch.stack([scores_of(seed) for seed in range(6)])
    alone = [[sample(scores[[row]], [one])[0] for _ in range(20)] for row, one in enumerate(six_of_a_kind())]
    company = six_of_a_kind()
    together = [[] for _ in company]
    chance = random.Random(1)
    while rows := [row for row in range(6) if len(together[row]) < 20]:
        chosen = chance.sample(rows, chance.randint(1, len(rows)))
        for row, token in zip(chosen, sample(scores[chosen], [company[row] for row in chosen]), strict=True):
            together[row].append(token)
    assert together == alone
    assert together[0] != together[2]


def six_of_a_kind():
    return [chooser(temperature=2.0, seed=seed) for seed in (1, 1, 2, 2, 3, 4)]


def test_the_programs_own_luck_is_left_alone_also_without_a_seed():
    before = torch.random.get_rng_state()
    first, second = (drawn(scores_of(2), 30, seed=None) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first != second


@pytest.mark.parametrize(
    ("wishes", "own", "greedy", "temperature", "top_p"),
    [
        ({}, None, True, 1.0, 1.0),
        ({}, LLAMAS_OWN, False, 0.6, 0.9),
        ({"temperature": 0}, LLAMAS_OWN, True, 0, 0.9),
        ({"temperature": 0.3}, None, False, 0.3, 1.0),
        ({"top_p": 0.5}, LLAMAS_OWN, False, 0.6, 0.5),
        ({"top_p": 0.5}, None, True, 1.0, 0.5),
    ],
)
def test_wishes_come_before_the_models_own_settings(wishes, own, greedy, temperature, top_p):
    one = chooser(own=own, **wishes)
    assert (one.greedy, one.temperature, one.top_p) == (greedy, temperature, top_p)


class Broken:
    """A constraint that can't go on."""

    active = True

    def mask(self):
        raise RuntimeError("no way on")


def test_one_that_cannot_go_on_does_not_stop_the_others():
    stuck = Sampler(SamplingParams(temperature=0), None, Broken(), (), CPU)
    scores = torch.stack([scores_of(seed) for seed in range(3)])
    first, failure, last = sample(scores, [chooser(), stuck, chooser()])
    assert (first, last) == (int(scores[0].argmax()), int(scores[2].argmax()))
    assert str(failure) == "no way on"

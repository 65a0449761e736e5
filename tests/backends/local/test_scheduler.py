"""Chunked prefill beside decode: long prompts delay nobody, and chunk sizes change no reply."""

import random
from dataclasses import replace

import pytest

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import scheduler
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.scheduler import split_token_budget
from llama_vision.core.errors import LocalModelError
from llama_vision.core.events import Started
from llama_vision.core.reply import Reply
from tests.drawing import one_shape
from tests.hugging_face import with_four_tiles
from tests.local_engine import add, counted_tokens, prepare, run_one

SHORT = SamplingParams(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


@pytest.fixture(scope="module")
def endless(loaded):
    """A model whose replies are as long as `max_tokens`, whatever its weights say."""
    return replace(loaded, eos_token_ids=frozenset())


@pytest.fixture(scope="module")
def tiled(loaded):
    return with_four_tiles(loaded)


def ask(text, *images, sampling=SHORT):
    parts = (*(image_from_any(image) for image in images), Text(text))
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling)


def next_turn(request, reply, text, *images):
    """The same conversation, one turn longer."""
    previous = Message("assistant", (Text(reply.text),))
    return replace(request, messages=(*request.messages, previous, *ask(text, *images).messages))


def text_of(loaded, num_tokens):
    """Text of about so many tokens."""
    return "so " * round(num_tokens * 100 / len(loaded.tokenizer.encode("so " * 100).ids))


def limited(max_tokens):
    return SamplingParams(max_tokens=max_tokens, temperature=0)


@pytest.mark.parametrize(
    ("remaining", "counts"),
    [
        ([], []),
        ([50], [50]),
        ([2000], [256]),
        ([2000, 50, 60], [146, 50, 60]),
        ([2000, 300, 40], [128, 88, 40]),
        ([40, 2000, 190], [40, 0, 190]),
        ([40, 2000, 180], [40, 36, 180]),
    ],
)
def test_the_budget_goes_to_the_first_and_the_shortest(remaining, counts):
    assert split_token_budget(remaining, 256) == counts


def test_every_prompt_is_computed_and_no_step_exceeds_the_budget():
    chance = random.Random(4)
    remaining = []
    for _ in range(3000):
        if len(remaining) < 16:
            remaining.append(chance.choice([20, 60, 60, 200, 2000]))
        counts = split_token_budget(remaining, 256)
        assert sum(counts) <= 256
        assert counts[0] >= min(remaining[0], 128)
        remaining = [left - count for left, count in zip(remaining, counts, strict=True) if left > count]


def test_a_long_prompt_delays_neither_decode_nor_shorter_prompts(endless):
    engine = Engine(endless, LocalSettings(max_batch_size=8))
    decoding = [add(engine, ask("Say hi", sampling=limited(200)))[0] for _ in range(3)]
    engine.step()
    engine.step()
    before = [sequence.num_output_tokens for sequence in decoding]
    long, outputs = add(engine, ask(text_of(endless, 1600), sampling=limited(200)))
    short, _ = add(engine, ask("Repeat: Paris", sampling=limited(200)))
    steps = 0
    with counted_tokens(endless) as computed:
        while not outputs:
            engine.step()
            steps += 1
            assert short.num_output_tokens == steps + 1
            assert [sequence.num_output_tokens for sequence in decoding] == [
                count + steps for count in before
            ]
            # Prefill chunks in one pass, then the decode step, of all five at last.
            assert computed.pop() == (5 if outputs else 4)
            assert len(computed) == 1
            assert sum(computed) <= 256
            computed.clear()
    assert isinstance(outputs[0], Started)
    assert len(long.prompt.token_ids) > 1500
    assert steps == pytest.approx(len(long.prompt.token_ids) / 256, abs=2)


def test_without_decode_prefill_takes_larger_chunks(endless):
    engine = Engine(endless, LocalSettings())
    _, outputs = add(engine, ask(text_of(endless, 1900), sampling=limited(2)))
    steps = 0
    while not outputs:
        engine.step()
        steps += 1
    assert steps == 1


def mixed(seed):
    image, other = one_shape(seed)[0].resize((90 + 60 * (seed % 3), 120)), one_shape(seed + 50)[0]
    filling = "Paris London Berlin Rome " * (seed % 5) * 3
    first = ask(filling + "What color is it?", image, sampling=limited(1 + seed % 3 * 9))
    return [
        ask("Repeat: " + filling),
        first,
        ask(filling + "Describe the image.", image, other),
        next_turn(first, Reply("red"), filling + "And this?", other),
        next_turn(first, Reply("red"), filling + "Are you sure?"),
    ][seed % 5]


@pytest.mark.parametrize(
    "chunk", [pytest.param(7, marks=pytest.mark.slow), 40, pytest.param(150, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_chunk_sizes_change_no_reply(tiled, monkeypatch, chunk):
    uncached = LocalSettings(max_batch_size=1, prefix_cache_bytes=0)
    requests = [mixed(seed) for seed in range(30)]
    alone = [run_one(Engine(tiled, uncached), request).text for request in requests]
    monkeypatch.setattr(scheduler, "_PREFILL_BUDGET_BESIDE_DECODE", chunk)
    monkeypatch.setattr(scheduler, "_MAX_CHUNK_TOKENS", chunk + 30)
    monkeypatch.setattr(scheduler, "_MIN_CHUNK_TOKENS", 3)
    chance = random.Random(chunk)
    engine = Engine(tiled, LocalSettings(max_batch_size=6))
    outputs = [[] for _ in requests]
    waiting = list(range(len(requests)))
    while waiting or engine.num_running:
        for number in waiting[: min(engine.num_free, chance.choice([0, 1, 2]))]:
            add(engine, requests[waiting.pop(0)], outputs[number])
        engine.step()
    assert [Reply.from_events(events).text for events in outputs] == alone
    assert len(set(alone)) > 5


def test_cancelled_or_failed_prefill_leaves_no_trace(endless, monkeypatch):
    monkeypatch.setattr(scheduler, "_PREFILL_BUDGET_BESIDE_DECODE", 40)
    engine = Engine(endless, LocalSettings(max_batch_size=4, prefix_cache_bytes=0))
    expected = run_one(engine, ask("Say hi", sampling=limited(60))).text
    _, outputs = add(engine, ask("Say hi", sampling=limited(60)))
    engine.step()
    cancelled_outputs = []
    cancelled = prepare(engine, ask(text_of(endless, 800)), cancelled_outputs.append)
    failing, failed_outputs = add(engine, ask("and " + text_of(endless, 800)))
    engine.add_sequences([cancelled])
    engine.step()
    failing.prompt.token_ids[300:] = ["no token"] * len(failing.prompt.token_ids[300:])
    for _ in range(3):
        engine.step()
    assert cancelled.num_remaining_prefill_tokens
    cancelled.cancelled.set()
    while engine.num_running:
        engine.step()
    assert isinstance(failed_outputs[-1], LocalModelError)
    assert cancelled_outputs == []
    assert Reply.from_events(outputs).text == expected

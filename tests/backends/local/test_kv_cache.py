"""The KV cache is allocated once: sequences wait for its blocks, and are preempted where they run out."""

import random
from dataclasses import replace

import pytest
import torch

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import ContextTooLongError, LocalModelError
from llama_vision.core.events import Finished, Started, TextDelta
from llama_vision.core.reply import Reply
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.hugging_face import with_four_tiles
from tests.local_engine import add, counted_images, prepare, run, run_one


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


@pytest.fixture(scope="module")
def tiled(loaded):
    return with_four_tiles(loaded)


@pytest.fixture(scope="module")
def endless(loaded):
    """A model whose replies are as long as `max_tokens`."""
    return replace(loaded, eos_token_ids=frozenset())


def ask(text, *images, max_tokens=24):
    parts = (*(image_from_any(image) for image in images), Text(text))
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0)
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling)


def blocks(loaded, count):
    """Bytes of so many blocks."""
    config = loaded.model.config.text_config
    num_layers = config.num_hidden_layers - len(config.cross_attention_layers)
    token = num_layers * 2 * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    return count * 16 * token * loaded.model.dtype.itemsize


def long_requests(count):
    return [
        ask(f"Describe the image {number}.", one_shape(number)[0], max_tokens=40 + 30 * number)
        if number % 2
        else ask(f"Say {number} and go on.", max_tokens=150)
        for number in range(count)
    ]


def count_preemptions(caplog):
    return sum("preempted" in message for message in caplog.messages)


@pytest.mark.parametrize("prefix_cache_bytes", [0, None])
@pytest.mark.slow_beyond(1)
def test_preempted_sequences_go_on_without_a_gap_or_a_repeat(endless, caplog, prefix_cache_bytes):
    caplog.set_level("INFO", "llama_vision")
    requests = long_requests(6)
    expected = [run_one(Engine(endless, LocalSettings()), request) for request in requests]
    settings = LocalSettings(kv_cache_bytes=blocks(endless, 30), prefix_cache_bytes=prefix_cache_bytes)
    engine = Engine(endless, settings)
    outputs = [[] for _ in requests]
    engine.add_sequences(
        [prepare(engine, request, its.append) for request, its in zip(requests, outputs, strict=True)]
    )
    while engine.num_running:
        engine.step()
    assert count_preemptions(caplog) > 2
    for events, reply in zip(outputs, expected, strict=True):
        assert sum(isinstance(event, Started) for event in events) == 1
        assert Reply.from_events(events).text == reply.text
        assert Reply.from_events(events).usage.output_tokens == reply.usage.output_tokens
    assert engine._pool.num_available == 30
    assert engine._kv_caches[0].num_blocks == 31


@pytest.mark.slow
def test_an_image_that_was_evicted_meanwhile_is_encoded_again(endless, caplog):
    caplog.set_level("INFO", "llama_vision")
    requests = [ask("Describe the image.", one_shape(number)[0], max_tokens=100) for number in range(5)]
    expected = [run_one(Engine(endless, LocalSettings()), request).text for request in requests]
    settings = LocalSettings(kv_cache_bytes=blocks(endless, 24), image_cache_bytes=0, prefix_cache_bytes=0)
    engine = Engine(endless, settings)
    with counted_images(endless) as encoded:
        replies = run(engine, requests)
    assert sum(encoded) > 5
    assert count_preemptions(caplog) > 0
    assert [reply.text for reply in replies] == expected


def test_an_image_that_left_the_cache_while_its_request_waited_is_encoded_again(loaded):
    engine = Engine(loaded, LocalSettings(kv_cache_bytes=blocks(loaded, 30)))
    question = ask("Describe the image.", one_shape(1)[0])
    expected = run_one(engine, question).text
    outputs = []
    waiting = prepare(engine, question, outputs.append)
    assert waiting.prompt.image_spans[0].image.tiles is None
    for number in range(2, 8):
        run_one(engine, ask("so " * 50 + "What?", one_shape(number)[0]))
    with counted_images(loaded) as encoded:
        engine.add_sequences([waiting])
        while engine.num_running:
            engine.step()
    assert sum(encoded) == 1
    assert Reply.from_events(outputs).text == expected


def test_a_preempted_sequence_is_the_next_to_run_and_can_be_cancelled(endless, caplog):
    caplog.set_level("INFO", "llama_vision")
    engine = Engine(endless, LocalSettings(kv_cache_bytes=blocks(endless, 22), prefix_cache_bytes=0))
    sequences = [add(engine, ask(f"Say {number}", max_tokens=200))[0] for number in range(3)]
    while not count_preemptions(caplog):
        engine.step()
    assert sequences[2].block_table is None
    assert engine.num_running == 3
    sequences[2].cancelled.set()
    engine.step()
    assert engine.num_running == 2
    while engine.num_running:
        engine.step()
    assert [sequence.num_output_tokens for sequence in sequences[:2]] == [200, 200]
    assert engine._pool.num_available == 22


def test_requests_wait_for_blocks_in_order(endless):
    engine = Engine(endless, LocalSettings(kv_cache_bytes=blocks(endless, 22)))
    first, _ = add(engine, ask("so " * 120, max_tokens=3))
    large, _ = add(engine, ask("and " * 120, max_tokens=3))
    small, _ = add(engine, ask("Say hi", max_tokens=3))
    assert first.block_table is not None
    assert large.block_table is None
    assert small.block_table is None  # though there would be blocks for it
    while engine.num_running:
        engine.step()
    assert [sequence.num_output_tokens for sequence in (first, large, small)] == [3, 3, 3]


@pytest.mark.slow
def test_a_sequence_may_have_all_of_the_kv_cache(tiled):
    settings = LocalSettings(kv_cache_bytes=blocks(tiled, 60))
    engine = Engine(replace(tiled, eos_token_ids=frozenset()), settings)
    request = ask("Describe the image.", one_shape(1)[0].resize((190, 190)), max_tokens=5000)
    sequence, outputs = add(engine, request)
    others = [add(engine, ask(f"Say {number}", max_tokens=60))[1] for number in range(4)]
    while engine.num_running:
        engine.step()
    image_blocks = -(-4 * 145 // 32)
    assert len(sequence.prompt.token_ids) + sequence.num_output_tokens == (60 - image_blocks) * 16
    assert Reply.from_events(outputs).finish_reason == "length"
    assert [Reply.from_events(events).usage.output_tokens for events in others] == [60] * 4


def test_what_never_fits_is_refused_with_what_to_do(tiled):
    local = LocalSettings(kv_cache_bytes=blocks(tiled, 60))
    engine = Engine(tiled, local)
    images = [one_shape(number)[0].resize((190, 190)) for number in range(4)]
    with pytest.raises(ContextTooLongError, match=r"4 images the KV cache has room for 0.*kv_cache_bytes"):
        prepare(engine, ask("What?", *images))
    with pytest.raises(ContextTooLongError, match="room for 960, with the reply") as refused:
        prepare(engine, ask("so " * 1000))
    assert refused.value.context_window == 960
    again = prepare(engine, ask("What?", *images[:1] * 3))  # the same one three times stands once
    engine.add_sequences([again])
    while engine.num_running:
        engine.step()
    assert again.num_output_tokens


@pytest.mark.parametrize("num_bytes", [0, 100_000])
def test_a_kv_cache_that_is_too_small_says_how_much_it_takes(num_bytes):
    backend = LocalBackend(find_provider("local"), local=LocalSettings(kv_cache_bytes=num_bytes))
    with pytest.raises(LocalModelError, match=r"kv_cache_bytes=\.\.\.\) has to be 1,\d+,\d+ or more"):
        backend.complete(ask("Say hi"))


def test_random_requests_and_cancellations_lose_no_block(endless):
    """As many requests as blocks allow, some cancelled in prefill, in decode or while they wait."""
    chance = random.Random(3)
    engine = Engine(endless, LocalSettings(kv_cache_bytes=blocks(endless, 40), max_batch_size=6))
    requests = [
        ask(
            "so " * chance.randrange(60) + f"Say {number % 7}",
            *[one_shape(number % 4)[0]] * (number % 3 == 0),
            max_tokens=chance.randrange(1, 40),
        )
        for number in range(40)
    ]
    outputs = [[] for _ in requests]
    waiting = [prepare(engine, request, its.append) for request, its in zip(requests, outputs, strict=True)]
    sequences = list(waiting)
    while waiting or engine.num_running:
        count = min(engine.num_free, chance.randrange(3))
        engine.add_sequences(waiting[:count])
        del waiting[:count]
        if chance.random() < 0.1:
            chance.choice(sequences).cancelled.set()
        engine.step()
    assert engine._pool.num_available == 40
    assert not engine._allocator.tables.tokens.any()
    assert not engine._allocator.tables.vision.any()
    finished = [events for events in outputs if events and isinstance(events[-1], Finished)]
    assert 20 < len(finished) < 40
    for number, events in enumerate(outputs):
        if events in finished:
            alone = run_one(Engine(endless, LocalSettings()), requests[number])
            assert "".join(event.text for event in events if isinstance(event, TextDelta)) == alone.text


def test_an_error_of_all_sequences_gives_all_blocks_back(endless):
    engine = Engine(endless, LocalSettings(kv_cache_bytes=blocks(endless, 40)))
    outputs = [add(engine, request)[1] for request in long_requests(4)]
    engine.step()
    engine.abort_all(torch.OutOfMemoryError("full"))
    assert engine.num_running == 0
    assert engine._pool.num_available == 40
    assert all(isinstance(events[-1], LocalModelError) for events in outputs)

"""Long prompts are read beside answers in the making, and known beginnings are not read again."""

import random
import time
from dataclasses import replace

import pytest
import torch

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import engine_thread as working
from llama_vision.backends.local import scheduler as reading
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.prefix_cache import PrefixCache
from llama_vision.backends.local.scheduler import split_token_budget
from llama_vision.core.errors import LocalModelError
from llama_vision.core.events import Finished, Started
from llama_vision.core.reply import Reply
from tests.drawing import one_shape
from tests.hugging_face import with_four_tiles

SHORT = SamplingParams(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


@pytest.fixture(scope="module")
def endless(loaded):
    """A model whose answers are as long as they may be, whatever its weights say."""
    return replace(loaded, end_ids=frozenset())


@pytest.fixture(scope="module")
def tiled(loaded):
    return with_four_tiles(loaded)


def ask(words, *images, sampling=SHORT):
    parts = (*(image_from_any(image) for image in images), Text(words))
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling)


def next_turn(request, reply, words, *images):
    """The same conversation, one turn longer."""
    said = Message("assistant", (Text(reply.text),))
    return replace(request, messages=(*request.messages, said, *ask(words, *images).messages))


def words(loaded, tokens):
    """Write about so many tokens, whatever the tokenizer makes of them."""
    return "so " * round(tokens * 100 / len(loaded.tokenizer.encode("so " * 100).ids))


def begin(engine, request, heard=None):
    heard = [] if heard is None else heard
    answer = engine.answer_to(request, heard.append, lambda: False)
    engine.add_sequences([answer])
    return answer, heard


def answered(engine, request):
    _, heard = begin(engine, request)
    while engine.working:
        engine.step()
    return Reply.from_events(heard)


def limited(tokens):
    return SamplingParams(max_tokens=tokens, temperature=0)


@pytest.mark.parametrize(
    ("unread", "counts"),
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
def test_a_step_is_shared_by_the_first_and_the_shortest(unread, counts):
    assert split_token_budget(unread, 256) == counts


def test_every_prompt_comes_to_its_end_and_no_step_grows():
    chance = random.Random(4)
    unread = []
    for _ in range(3000):
        if len(unread) < 16:
            unread.append(chance.choice([20, 60, 60, 200, 2000]))
        counts = split_token_budget(unread, 256)
        assert sum(counts) <= 256
        assert counts[0] >= min(unread[0], 128)
        unread = [left - count for left, count in zip(unread, counts, strict=True) if left > count]


def test_a_long_prompt_holds_up_neither_answers_nor_shorter_ones(endless):
    engine = Engine(endless, LocalSettings(max_batch_size=8))
    writing = [begin(engine, ask("Say hi", sampling=limited(200)))[0] for _ in range(3)]
    engine.step()
    engine.step()
    before = [answer.num_output_tokens for answer in writing]
    num_prefill_tokens = engine.num_prefill_tokens
    long, heard = begin(engine, ask(words(endless, 1600), sampling=limited(200)))
    short, _ = begin(engine, ask("Repeat: Paris", sampling=limited(200)))
    steps = 0
    while not heard:
        engine.step()
        steps += 1
        assert short.num_output_tokens == steps + 1
        assert [answer.num_output_tokens for answer in writing] == [tokens + steps for tokens in before]
        assert engine.num_prefill_tokens - num_prefill_tokens <= 256 * steps
    assert isinstance(heard[0], Started)
    assert len(long.prompt.token_ids) > 1500
    assert steps == pytest.approx(len(long.prompt.token_ids) / 256, abs=2)


def test_nobody_writes_so_a_prompt_is_read_in_larger_pieces(endless):
    engine = Engine(endless, LocalSettings())
    _, heard = begin(engine, ask(words(endless, 1900), sampling=limited(2)))
    steps = 0
    while not heard:
        engine.step()
        steps += 1
    assert steps == 2


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


@pytest.mark.parametrize("piece", [7, 40, 150])
def test_however_small_the_pieces_the_answers_are_the_same(tiled, monkeypatch, piece):
    cold = LocalSettings(max_batch_size=1, prefix_cache_bytes=0)
    requests = [mixed(seed) for seed in range(30)]
    alone = [answered(Engine(tiled, cold), request).text for request in requests]
    monkeypatch.setattr(reading, "_PREFILL_BUDGET_BESIDE_DECODE", piece)
    monkeypatch.setattr(reading, "_MAX_CHUNK_TOKENS", piece + 30)
    monkeypatch.setattr(reading, "_FREE_PADDING", 3)
    chance = random.Random(piece)
    engine = Engine(tiled, LocalSettings(max_batch_size=6))
    heard = [[] for _ in requests]
    waiting = list(range(len(requests)))
    while waiting or engine.num_running:
        for number in waiting[: min(engine.num_free, chance.choice([0, 1, 2]))]:
            begin(engine, requests[waiting.pop(0)], heard[number])
        engine.step()
    assert [Reply.from_events(events).text for events in heard] == alone
    assert len(set(alone)) > 5


def test_who_leaves_or_fails_while_it_is_read_leaves_no_trace(endless, monkeypatch):
    monkeypatch.setattr(reading, "_PREFILL_BUDGET_BESIDE_DECODE", 40)
    engine = Engine(endless, LocalSettings(max_batch_size=4, prefix_cache_bytes=0))
    expected = answered(engine, ask("Say hi", sampling=limited(60))).text
    _, heard = begin(engine, ask("Say hi", sampling=limited(60)))
    engine.step()
    gone = []
    waits = iter([True] * 4)
    left = engine.answer_to(ask(words(endless, 800)), gone.append, lambda: not next(waits, False))
    fails, failed = begin(engine, ask("and " + words(endless, 800)))
    engine.add_sequences([left])
    engine.step()
    fails.prompt.token_ids[300:] = ["no token"] * len(fails.prompt.token_ids[300:])
    while engine.num_running:
        engine.step()
    assert isinstance(failed[-1], LocalModelError)
    assert gone == []
    assert Reply.from_events(heard).text == expected


@pytest.mark.parametrize("images", [0, 1, 2])
def test_the_next_turn_reads_only_what_is_new(tiled, images):
    seen = [one_shape(seed)[0] for seed in range(images)]
    engine = Engine(tiled, LocalSettings())
    request = ask("Repeat: " + "Paris London Berlin Rome Oslo Cairo " * 4, *seen)
    for question, more in [("And now?", []), ("And this?", seen[:1]), ("Are you sure?", [])]:
        reply = answered(engine, request)
        request = next_turn(request, reply, question, *more)
        before, looks = engine.num_prefill_tokens, engine.vision_encoder.num_encoded
        again = answered(engine, request)
        known = again.usage.cached_input_tokens
        assert engine.num_prefill_tokens - before == again.usage.input_tokens - known
        assert known >= reply.usage.input_tokens
        assert engine.vision_encoder.num_encoded == looks
        cold = answered(Engine(tiled, LocalSettings(prefix_cache_bytes=0)), request)
        assert (again.text, cold.usage.cached_input_tokens) == (cold.text, 0)


def test_the_same_question_again_is_not_read_again_but_for_its_last_word(tiled):
    engine = Engine(tiled, LocalSettings())
    request = ask("Describe the image. " * 9, one_shape(3)[0])
    first, second = answered(engine, request), answered(engine, request)
    assert first.usage.cached_input_tokens == 0
    assert second.usage.cached_input_tokens == second.usage.input_tokens - 1
    assert second.text == first.text


def test_another_image_is_another_beginning(tiled):
    engine = Engine(tiled, LocalSettings())
    question = "Describe the image. " * 9
    for seed in range(3):
        request = ask(question, one_shape(seed)[0])
        reply = answered(engine, request)
        assert reply.usage.cached_input_tokens == 0
        cold = Engine(tiled, LocalSettings(prefix_cache_bytes=0))
        assert reply.text == answered(cold, request).text


def test_the_same_words_before_another_image_are_known(tiled):
    engine = Engine(tiled, LocalSettings())
    for seed in range(3):
        parts = (Text("Paris London " * 20), image_from_any(one_shape(seed)[0]), Text("Describe the image."))
        request = ChatRequest("tiny", (Message("user", parts),), sampling=SHORT)
        reply = answered(engine, request)
        assert (reply.usage.cached_input_tokens > 40) is (seed > 0)
        cold = Engine(tiled, LocalSettings(prefix_cache_bytes=0))
        assert reply.text == answered(cold, request).text


def remembered(count):
    """What would be remembered of so many words: 40 bytes each."""
    return torch.arange(count).float().expand(2, 5, count)[..., None].contiguous()


def test_beginnings_are_kept_within_bounds_the_latest_used_longest():
    beginnings = PrefixCache(40 * 250)
    for first in range(3):
        beginnings.insert([first] * 100, lambda: remembered(100))
        beginnings.match([0] * 50)
    assert beginnings.num_bytes == 40 * 200
    assert [beginnings.match([first] * 64) is not None for first in range(3)] == [True, False, True]
    beginnings.insert([9] * 300, lambda: remembered(300))  # by itself more than there is room for
    assert beginnings.num_bytes == 40 * 200
    beginnings.clear()
    assert (beginnings.num_bytes, beginnings.match([0] * 64)) == (0, None)
    PrefixCache(0).insert([0] * 64, lambda: pytest.fail("it keeps nothing"))


def test_a_conversation_is_kept_once_however_long_it_grows():
    beginnings = PrefixCache(2**20)
    for count in range(40, 400, 40):
        beginnings.insert([*range(count)], lambda count=count: remembered(count))
        assert beginnings.num_bytes == 40 * count
    beginnings.insert([*range(200)], lambda: pytest.fail("all of it is kept"))
    found = beginnings.match([*range(150), 7, 7, 7])
    assert torch.equal(found, remembered(150))
    assert beginnings.match([*range(31)]) is None
    assert beginnings.match([*range(64)]).shape[2] == 63  # the last word has to be worked out


def test_the_memory_of_a_large_request_is_given_back(tiled):
    engine = Engine(tiled, LocalSettings(prefix_cache_bytes=0))
    small, large = ask("Describe the image.", one_shape(1)[0]), ask(words(tiled, 1600), one_shape(2)[0])
    first = answered(engine, small), answered(engine, large)
    assert engine.can_trim
    begin(engine, small)
    assert not engine.can_trim  # someone is there
    engine.trim_memory()
    assert engine._kv_cache.self_attention.columns > 1500
    while engine.num_running:
        engine.step()
    engine.trim_memory()
    assert not engine.can_trim
    assert engine._kv_cache.self_attention.columns == 0
    assert all(one.numel() == 0 for one in engine._kv_cache.self_attention.keys.values())
    assert (answered(engine, small), answered(engine, large)) == first


def test_a_small_request_takes_little_enough_to_keep(loaded):
    engine = Engine(loaded, LocalSettings())
    answered(engine, ask("Say hi"))
    assert not engine.can_trim
    engine.trim_memory()
    assert engine._kv_cache.self_attention.columns == 256


def test_a_worker_gives_memory_back_after_a_while(loaded, monkeypatch):
    monkeypatch.setattr(working, "_IDLE_S", 0.2)
    worker = working.EngineThread("tiny", LocalSettings(prefix_cache_bytes=0))
    try:
        ends = []
        worker.submit(ask(words(loaded, 1600)), ends.append)
        limit = time.monotonic() + 60
        while not (ends and isinstance(ends[-1], Finished)) and time.monotonic() < limit:
            time.sleep(0.01)
        assert worker._engine._kv_cache.self_attention.columns > 1500
        while worker._engine._kv_cache.self_attention.columns and time.monotonic() < limit:
            time.sleep(0.01)
        assert worker._engine._kv_cache.self_attention.columns == 0
    finally:
        worker.stop()

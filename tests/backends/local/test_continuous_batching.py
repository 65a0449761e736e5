"""Requests are queued, join, are cancelled and fail, and the others don't notice."""

import asyncio
import queue
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

from llama_vision import ChatRequest, Message, ResponseFormat, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.engine_thread import EngineThread, get_engine_thread
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import (
    ConfigurationError,
    ContextTooLongError,
    LlamaVisionError,
    LocalModelError,
)
from llama_vision.core.events import Finished, Started, TextDelta
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.local_engine import prepare, run, run_one

ENDLESS = SamplingParams(max_tokens=1500, temperature=50.0, top_k=1000, seed=8)
"""More than a thousand tokens, which take seconds."""


def ask(text, *images, **options):
    parts = (*(image_from_any(image) for image in images), Text(text))
    return ChatRequest("tiny", (Message("user", parts),), **options)


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


def test_a_cancelled_sequence_leaves_after_one_step(loaded):
    engine = Engine(loaded, LocalSettings(max_batch_size=4))
    outputs = [[] for _ in range(4)]
    requests = [ask("Describe the image.", one_shape(1)[0]), ask("Hi", sampling=ENDLESS)] * 2
    sequences = [prepare(engine, request, its.append) for request, its in zip(requests, outputs, strict=True)]
    engine.add_sequences(sequences)
    engine.step()
    assert engine.num_free == 0
    sequences[1].cancelled.set()
    engine.step()
    count = len(outputs[1])
    assert engine.num_free == 1
    while engine.num_running > 1:
        engine.step()
    assert len(outputs[1]) == count
    assert Reply.from_events(outputs[0]) == Reply.from_events(outputs[2])


def without_cached_tokens(reply):
    return replace(reply, usage=replace(reply.usage, cached_input_tokens=None))


@pytest.mark.slow
def test_random_cancellations_change_nothing_for_other_sequences(loaded):
    """Their blocks are given to others, tokens and images."""
    chance = random.Random(9)
    engine = Engine(loaded, LocalSettings(max_batch_size=5))
    requests = []
    for seed in range(40):
        image = one_shape(seed)[0]
        kinds = [
            ("Describe the image.", image),
            ("Repeat: Paris London Berlin Rome",),
            ("What?", image, image),
        ]
        requests.append(ask(*kinds[seed % 3], sampling=SamplingParams(max_tokens=40)))
    outputs = [[] for _ in requests]
    sequences = [prepare(engine, request, its.append) for request, its in zip(requests, outputs, strict=True)]
    waiting = list(sequences)
    while waiting or engine.num_running:
        added, waiting = waiting[: engine.num_free], waiting[engine.num_free :]
        engine.add_sequences(added)
        if chance.random() < 0.2:
            chance.choice(sequences).cancelled.set()
        engine.step()
    finished = [n for n in range(40) if any(isinstance(event, Finished) for event in outputs[n])]
    assert 5 < len(finished) < 40
    for n in finished:
        alone = run_one(Engine(loaded, LocalSettings(max_batch_size=1)), requests[n])
        assert without_cached_tokens(Reply.from_events(outputs[n])) == without_cached_tokens(alone)


class Consumer:
    """One consumer's outputs, also logged in the order of time among the others'."""

    def __init__(self, log, number):
        self.log, self.number, self.outputs = log, number, queue.SimpleQueue()

    def __call__(self, output):
        self.log.append((self.number, output))
        self.outputs.put(output)

    def last(self):
        while not isinstance(output := self.outputs.get(timeout=60), Finished | LlamaVisionError):
            pass
        return output


@pytest.fixture
def engine_thread():
    """A batch of two, and a queue of three."""
    thread = EngineThread("tiny", LocalSettings(max_batch_size=2, max_waiting=3))
    yield thread
    thread.stop()
    assert not thread._threads[0].is_alive()


def fill_batch(engine_thread, log):
    sequences = []
    for number in range(2):
        consumer = Consumer(log, f"running {number}")
        sequences.append(engine_thread.submit(ask("Hi", sampling=ENDLESS), consumer))
        assert isinstance(consumer.outputs.get(timeout=60), Started)
    return sequences


def test_first_come_first_served(engine_thread):
    log = []
    running = fill_batch(engine_thread, log)
    waiting = [Consumer(log, number) for number in range(3)]
    for consumer in waiting:
        engine_thread.submit(ask("Say hi"), consumer)
    for sequence in running:
        sequence.cancelled.set()
    for consumer in waiting:
        assert isinstance(consumer.last(), Finished)
    assert [number for number, event in log if isinstance(event, Started) and number in range(3)] == [0, 1, 2]


def test_a_full_queue_refuses_and_a_cancelled_request_makes_room(engine_thread):
    log = []
    fill_batch(engine_thread, log)
    waiting = [engine_thread.submit(ask("Say hi"), Consumer(log, number)) for number in range(3)]
    with pytest.raises(LocalModelError, match=r"3 requests wait .*max_concurrency.*max_waiting"):
        engine_thread.submit(ask("Say hi"), Consumer(log, 3))
    waiting[1].cancelled.set()
    assert engine_thread.submit(ask("Say hi"), Consumer(log, 4))


def test_running_and_queued_requests_fail_when_the_thread_stops():
    engine_thread = EngineThread("tiny", LocalSettings(max_batch_size=2))
    log = []
    fill_batch(engine_thread, log)
    waiting = Consumer(log, 0)
    engine_thread.submit(ask("Say hi"), waiting)
    engine_thread.stop()
    assert isinstance(waiting.last(), LocalModelError)
    assert sum(isinstance(output, LocalModelError) for _, output in log) == 3
    with pytest.raises(LocalModelError, match="stopped"):
        engine_thread.submit(ask("Say hi"), waiting)


class OutOfMemoryOnce:
    """A vision model's hook that fails as a full GPU does, where more than one image is encoded."""

    def __call__(self, module, args):
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("no room for two")


def test_out_of_memory_is_retried_one_sequence_at_a_time(loaded, caplog):
    caplog.set_level("DEBUG", "llama_vision")
    engine = Engine(loaded, LocalSettings(prefix_cache_bytes=0))
    requests = [ask("Describe the image.", one_shape(seed)[0]) for seed in range(3)]
    hook = loaded.model.model.vision_model.patch_embedding.register_forward_pre_hook(OutOfMemoryOnce())
    try:
        replies = run(engine, requests)
    finally:
        hook.remove()
    alone = [run_one(Engine(loaded, LocalSettings(prefix_cache_bytes=0)), request) for request in requests]
    assert replies == alone
    assert "Encoding the images of 3 sequences failed, one at a time now: no room for two" in caplog.messages


def test_out_of_memory_says_which_settings_help(loaded):
    engine = Engine(loaded, LocalSettings())
    outputs = []
    two_images = ask("Describe the image.", one_shape(1)[0], one_shape(2)[0])
    hook = loaded.model.model.vision_model.patch_embedding.register_forward_pre_hook(OutOfMemoryOnce())
    try:
        engine.add_sequences([prepare(engine, two_images, outputs.append)])
    finally:
        hook.remove()
    (error,) = outputs
    assert isinstance(error, LocalModelError)
    assert "memory of the device is full" in str(error)
    assert "max_batch_size" in str(error)
    assert isinstance(error.__cause__, torch.OutOfMemoryError)
    assert engine.num_running == 0


@pytest.mark.slow
def test_a_request_joins_while_another_is_running():
    backend = LocalBackend(find_provider("local"))
    long = backend.stream(ask("Hi", sampling=ENDLESS))
    assert isinstance(next(long), Started)
    next(long)
    began = time.monotonic()
    assert backend.complete(ask("Say hi")).text == "Hi"
    assert time.monotonic() - began < 1.0
    more = sum(isinstance(event, TextDelta) for event in long)
    assert more > 100


def test_a_broken_image_fails_alone():
    backend = LocalBackend(find_provider("local"))
    image, color, shape = one_shape(3)
    results = {}

    def work(number):
        parts = (image_from_any(image), Text(f"What color is the {shape}?"))
        if number % 3 == 0:
            parts = (Image(SAMPLE_IMAGES["circle"].read_bytes()[:300], "image/png"), *parts[1:])
        try:
            results[number] = backend.complete(ChatRequest("tiny", (Message("user", parts),))).text
        except LlamaVisionError as error:
            results[number] = type(error).__name__

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: "ImageError" if number % 3 == 0 else color for number in range(12)}


def test_a_decode_step_wakes_an_event_loop_once_however_many_wait(monkeypatch):
    backend = LocalBackend(find_provider("local"), local=LocalSettings())
    schema = {"type": "string", "minLength": 100}
    request = ask(
        "Hi",
        response_format=ResponseFormat("json_schema", "text", schema),
        sampling=SamplingParams(max_tokens=30, temperature=0),
    )
    assert backend.complete(request).text
    steps, step = [], Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine: steps.append(engine) or step(engine))

    async def count_wake_ups():
        loop, woken = asyncio.get_running_loop(), []
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: woken.append(args) or wake(*args)
        await asyncio.gather(*(backend.acomplete(request) for _ in range(8)))
        return len(woken)

    # Where a timer looks around in the middle of a step, that step wakes the loop once more.
    assert 20 < asyncio.run(count_wake_ups()) <= len(steps) + 16


@pytest.mark.slow
def test_settings_reach_the_model():
    provider = find_provider("local")
    short = LocalBackend(provider, local=LocalSettings(max_model_len=60, dtype="bfloat16", device="cpu"))
    reply = short.complete(ask("Say hi"))
    assert reply.text == "Hi"
    with pytest.raises(
        ContextTooLongError, match=r"context 60: .*max_model_len=\.\.\.\) to up to 2048"
    ) as refused:
        short.complete(ask("so " * 70))
    assert refused.value.context_window == 60
    assert refused.value.requested_tokens > 70
    assert refused.value.status_code == 0
    with pytest.raises(LocalModelError, match=r"'warp9'.*Is it there"):
        LocalBackend(provider, local=LocalSettings(device="warp9")).complete(ask("Hi"))
    assert get_engine_thread("tiny") is get_engine_thread("tiny", LocalSettings())
    assert get_engine_thread("tiny") is not get_engine_thread("tiny", LocalSettings(max_model_len=60))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"max_batch_size": 0}, "max_batch_size has to be 1 or more, and is 0"),
        ({"max_model_len": 1}, "max_model_len"),
        ({"image_cache_bytes": -1}, "image_cache_bytes"),
        ({"max_waiting": 0}, "max_waiting"),
        ({"dtype": "int4"}, "dtype has to be one of .*bfloat16.*'int4'"),
    ],
)
def test_settings_that_cannot_be(wrong, text):
    with pytest.raises(ConfigurationError, match=text):
        LocalSettings(**wrong)


@pytest.mark.slow
def test_a_process_ends_in_the_middle_of_streams_and_a_forked_one_replies_too():
    code = """
import os, sys, warnings
from llama_vision import ChatRequest, Message, SamplingParams, Text
from llama_vision.backends import create_backend
from llama_vision.providers import find_provider
backend = create_backend(find_provider("local"))
def ask(text, **options): return ChatRequest("tiny", (Message("user", (Text(text),)),), **options)
print(backend.complete(ask("Say hi")).text, flush=True)
warnings.simplefilter("ignore")  # of threads beside a fork: what happens then is the point
if (child := os.fork()) == 0:
    print(backend.complete(ask("Say hi")).text, flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
streams = [backend.stream(ask("Hi", sampling=SamplingParams(max_tokens=1900, temperature=50.0))) for _ in range(3)]
for stream in streams:
    next(stream)
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["Hi", "Hi", "end"]
    assert done.stderr == ""

"""Requests come, wait, leave and fail, and the others don't notice."""

import queue
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.engine_thread import EngineThread, get_engine_thread
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import (
    ConfigurationError,
    LlamaVisionError,
    LocalModelError,
    UnsupportedInputError,
)
from llama_vision.core.events import Finished, Started, TextDelta
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
from tests.drawing import one_shape

ENDLESS = SamplingParams(max_tokens=1500, temperature=50.0, top_k=1000, seed=8)
"""More than a thousand tokens, which take seconds."""


def ask(words, *images, **options):
    parts = (*(image_from_any(image) for image in images), Text(words))
    return ChatRequest("tiny", (Message("user", parts),), **options)


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


def test_an_answer_nobody_waits_for_is_gone_after_one_step(loaded):
    engine = Engine(loaded, LocalSettings(max_batch_size=4))
    gone = threading.Event()
    heard = [[] for _ in range(4)]
    requests = [ask("Describe the image.", one_shape(1)[0]), ask("Hi", sampling=ENDLESS)] * 2
    engine.add_sequences(
        [
            engine.answer_to(request, told.append, gone.is_set if number == 1 else lambda: False)
            for number, (request, told) in enumerate(zip(requests, heard, strict=True))
        ]
    )
    engine.step()
    assert engine.num_free == 0
    gone.set()
    engine.step()
    said = len(heard[1])
    assert engine.num_free == 1
    while engine.num_running > 1:
        engine.step()
    assert len(heard[1]) == said
    assert Reply.from_events(heard[0]) == Reply.from_events(heard[2])


def outcome(events):
    """All of a reply but how much of its prompt was known."""
    reply = Reply.from_events(events)
    return replace(reply, usage=replace(reply.usage, cached_input_tokens=None))


def test_leaving_by_chance_changes_nothing_for_those_who_stay(loaded):
    """Rows are moved into the gaps: whoever is moved has to find its words and images again."""
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
    heard = [[] for _ in requests]
    gone = [threading.Event() for _ in requests]
    waiting = list(range(40))
    while waiting or engine.num_running:
        now, waiting = waiting[: engine.num_free], waiting[engine.num_free :]
        engine.add_sequences([engine.answer_to(requests[n], heard[n].append, gone[n].is_set) for n in now])
        if chance.random() < 0.2:
            chance.choice(gone).set()
        engine.step()
    stayed = [n for n in range(40) if any(isinstance(event, Finished) for event in heard[n])]
    assert 5 < len(stayed) < 40
    for n in stayed:
        alone = []
        quiet = Engine(loaded, LocalSettings(max_batch_size=1))
        quiet.add_sequences([quiet.answer_to(requests[n], alone.append, lambda: False)])
        while quiet.num_running:
            quiet.step()
        assert outcome(heard[n]) == outcome(alone)


class Told:
    """What one consumer hears, with the others' in the order of time."""

    def __init__(self, log, number):
        self.log, self.number, self.events = log, number, queue.SimpleQueue()

    def __call__(self, outcome):
        self.log.append((self.number, outcome))
        self.events.put(outcome)

    def end(self):
        while not isinstance(outcome := self.events.get(timeout=60), Finished | LlamaVisionError):
            pass
        return outcome


@pytest.fixture
def worker():
    """A worker with two slots and three places to wait."""
    one = EngineThread("tiny", LocalSettings(max_batch_size=2, max_waiting=3))
    yield one
    one.stop()
    assert not one._thread.is_alive()


def busy(worker, log):
    """Fill both slots."""
    jobs = []
    for number in range(2):
        told = Told(log, f"busy {number}")
        jobs.append(worker.submit(ask("Hi", sampling=ENDLESS), told))
        assert isinstance(told.events.get(timeout=60), Started)
    return jobs


def test_first_come_first_served(worker):
    log = []
    jobs = busy(worker, log)
    waiting = [Told(log, number) for number in range(3)]
    for told in waiting:
        worker.submit(ask("Say hi"), told)
    for job in jobs:
        job.left.set()
    for told in waiting:
        assert isinstance(told.end(), Finished)
    assert [number for number, event in log if isinstance(event, Started) and number in range(3)] == [0, 1, 2]


def test_one_too_many_is_refused_and_one_that_left_makes_room(worker):
    log = []
    busy(worker, log)
    waiting = [worker.submit(ask("Say hi"), Told(log, number)) for number in range(3)]
    with pytest.raises(LocalModelError, match=r"3 requests wait .*max_concurrency.*max_waiting"):
        worker.submit(ask("Say hi"), Told(log, 3))
    waiting[1].left.set()
    assert worker.submit(ask("Say hi"), Told(log, 4))


def test_who_still_waits_when_the_worker_stops_is_told():
    worker = EngineThread("tiny", LocalSettings(max_batch_size=2))
    log = []
    busy(worker, log)
    waiting = Told(log, 0)
    worker.submit(ask("Say hi"), waiting)
    worker.stop()
    assert isinstance(waiting.end(), LocalModelError)
    assert sum(isinstance(outcome, LocalModelError) for _, outcome in log) == 3
    with pytest.raises(LocalModelError, match="stopped"):
        worker.submit(ask("Say hi"), waiting)


def test_a_request_joins_while_another_is_being_answered():
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
    outcomes = {}

    def work(number):
        parts = (image_from_any(image), Text(f"What color is the {shape}?"))
        if number % 3 == 0:
            parts = (Image(SAMPLE_IMAGES["circle"].read_bytes()[:300], "image/png"), *parts[1:])
        try:
            outcomes[number] = backend.complete(ChatRequest("tiny", (Message("user", parts),))).text
        except LlamaVisionError as error:
            outcomes[number] = type(error).__name__

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {number: "ImageError" if number % 3 == 0 else color for number in range(12)}


def test_settings_reach_the_model():
    provider = find_provider("local")
    short = LocalBackend(provider, local=LocalSettings(max_model_len=60, dtype="bfloat16", device="cpu"))
    reply = short.complete(ask("Say hi"))
    assert reply.text == "Hi"
    with pytest.raises(UnsupportedInputError, match=r"context 60: .*max_model_len=\.\.\.\) to up to 2048"):
        short.complete(ask("so " * 70))
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


def test_a_process_ends_in_the_middle_of_answers_and_a_forked_one_answers_too():
    code = """
import os, sys, warnings
from llama_vision import ChatRequest, Message, Sampling, Text
from llama_vision.backends import create_backend
from llama_vision.providers import find_provider
backend = create_backend(find_provider("local"))
def ask(words, **options): return ChatRequest("tiny", (Message("user", (Text(words),)),), **options)
print(backend.complete(ask("Say hi")).text, flush=True)
warnings.simplefilter("ignore")  # of threads beside a fork: what happens then is the point
if (child := os.fork()) == 0:
    print(backend.complete(ask("Say hi")).text, flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
streams = [backend.stream(ask("Hi", sampling=Sampling(max_tokens=1900, temperature=50.0))) for _ in range(3)]
for stream in streams:
    next(stream)
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["Hi", "Hi", "end"]
    assert done.stderr == ""

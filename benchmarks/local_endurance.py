"""Endurance of the local model: thousands of requests, with cancellations, errors and long prompts among them.

`python benchmarks/local.py --requests 10000` and `--soak 300` run it.
"""

import asyncio
import gc
import random
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import PIL.Image

from llama_vision import ChatRequest, Image, Message, ResponseFormat, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.engine_thread import get_engine_thread
from llama_vision.core.errors import ContextTooLongError, ImageError, UnsupportedInputError
from llama_vision.providers import find_provider

# Caches that fill soon: memory must not grow after that.
SETTINGS = LocalSettings(image_cache_bytes=2**23, prefix_cache_bytes=2**23, max_batch_size=16)
SCHEMA = ResponseFormat(
    "json_schema",
    schema={
        "type": "object",
        "properties": {"color": {"type": "string", "maxLength": 8}},
        "required": ["color"],
    },
)
TIMEOUT_S = 600.0


def backend():
    return LocalBackend(find_provider("local"), local=SETTINGS)


def ask(text, *images, max_tokens=24, **options):
    parts = (*(image_from_any(image) for image in images), Text(text))
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0)
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling, **options)


def image(number):
    """A unique image."""
    return PIL.Image.new("RGB", (160, 160), (number % 256, 80, number // 256 % 256))


def question(number):
    """One of many, with and without an image, some guided by a schema."""
    return [
        lambda: ask(f"Say {number}"),
        lambda: ask("Describe the image.", image(number)),
        lambda: ask("What color is it?", image(number), response_format=SCHEMA),
        lambda: ask(f"Repeat: {number} " + "Paris London " * (number % 40)),
    ][number % 4]()


def resident():
    """Resident memory of this process, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def run_many(requests, threads=8):
    """Run many requests from several threads.

    Returns:
        How many were answered, seconds of CPU time, and megabytes of memory after each fifth.
    """
    one, numbers, answered = backend(), iter(range(requests)), []
    lock, marks = threading.Lock(), []

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            reply = one.complete(question(number))
            with lock:
                answered.append(reply.finish_reason)
                if len(answered) % (requests // 5) == 0:
                    marks.append(resident() / 2**20)

    began = time.process_time()
    run_threads([work] * threads)
    return {
        "requests": requests,
        "answered": len(answered),
        "seconds": time.process_time() - began,
        "megabytes": marks,
    }


@dataclass
class Soak:
    """All kinds of requests from many threads, for some seconds.

    Attributes:
        counts: How often each kind ended as it should.
        lost: What did not.
        megabytes: Of memory, at ten times.
    """

    seconds: float
    counts: dict = field(default_factory=dict)
    lost: list = field(default_factory=list)
    megabytes: list = field(default_factory=list)

    def __post_init__(self):
        self.backend = backend()
        self.known = [question(number) for number in range(24)]
        self.answers = [self.backend.complete(request).text for request in self.known]
        self.end = time.monotonic() + self.seconds

    def work(self, seed):
        chance = random.Random(seed)  # noqa: S311 - no secret
        kinds = [
            self.answer,
            self.answer,
            self.answer_async,
            self.close_stream,
            self.cancel,
            self.fail,
            self.long_prompt,
        ]
        while time.monotonic() < self.end:
            kind = chance.choice(kinds)
            try:
                kind(chance)
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                self.lost.append(f"{kind.__name__}: {type(error).__name__}: {error}")

    def watch_memory(self):
        for moment in range(1, 11):
            time.sleep(max(self.end - self.seconds * (1 - moment / 10) - time.monotonic(), 0))
            self.megabytes.append(resident() / 2**20)

    def answer(self, chance):
        """Repeat a question of the quiet start, and compare the replies."""
        number = chance.randrange(len(self.known))
        text = self.backend.complete(self.known[number]).text
        if text != self.answers[number]:
            raise AssertionError(f"{text!r} and not {self.answers[number]!r}")

    def answer_async(self, chance):
        numbers = [chance.randrange(len(self.known)) for _ in range(3)]

        async def together():
            answers = (self.backend.acomplete(self.known[number]) for number in numbers)
            return await asyncio.wait_for(asyncio.gather(*answers), TIMEOUT_S)

        texts = [reply.text for reply in asyncio.run(together())]
        if texts != [self.answers[number] for number in numbers]:
            raise AssertionError(texts)

    def close_stream(self, chance):
        """Close a stream after some events."""
        stream = self.backend.stream(endless(chance))
        for _ in range(chance.randint(1, 20)):
            next(stream, None)  # it may have come to its end before
        stream.close()

    def cancel(self, chance):
        async def cancel():
            task = asyncio.create_task(self.backend.acomplete(endless(chance)))
            await asyncio.sleep(chance.random() / 5)
            if not task.cancel():
                return  # it had come to its end before
            await asyncio.wait([task], timeout=TIMEOUT_S)
            if not task.cancelled():
                raise AssertionError("it was not cancelled")

        asyncio.run(cancel())

    def fail(self, chance):
        """Send a request that has to be refused."""
        request, expected = chance.choice(
            [
                (ask("so " * 3000), ContextTooLongError),
                (
                    ChatRequest(
                        "tiny", (Message("user", (Image(b"\x89PNG\r\n\x1a\nno", "image/png"), Text("?"))),)
                    ),
                    ImageError,
                ),
                (
                    ask("Hi", response_format=ResponseFormat("json_schema", schema={"not": {}})),
                    UnsupportedInputError,
                ),
            ]
        )
        try:
            self.backend.complete(request)
        except expected:
            return
        raise AssertionError(f"{expected.__name__} was expected")

    def long_prompt(self, chance):
        reply = self.backend.complete(
            ask(f"{chance.random()} " + "and so " * chance.randint(200, 400), max_tokens=4)
        )
        if reply.usage.input_tokens < 400:
            raise AssertionError(reply)

    def idle(self):
        """Wait until no sequence runs or waits; False where that does not come about."""
        end = time.monotonic() + 20
        while (busy := self.is_busy()) and time.monotonic() < end:
            time.sleep(0.01)
        return not busy

    def is_busy(self):
        thread = get_engine_thread("tiny", SETTINGS)
        return bool(thread._waiting or thread._engine.num_running)  # noqa: SLF001 - nothing else tells


def endless(chance):
    """A request whose reply hardly ever ends before `max_tokens`."""
    sampling = SamplingParams(max_tokens=300, temperature=50.0, top_k=1000, seed=chance.randrange(2**31))
    return replace(ask(f"Say {chance.random()}"), sampling=sampling)


def soak(seconds, threads=12):
    """Run all kinds of requests for so long."""
    soaked = Soak(seconds)
    works = [lambda seed=seed: soaked.work(seed) for seed in range(threads)]
    late = run_threads([*works, soaked.watch_memory], seconds + TIMEOUT_S)
    lost = [
        *soaked.lost,
        *["a thread hangs"] * late,
        *([] if soaked.idle() else ["a sequence is still running"]),
    ]
    return {"seconds": seconds, "counts": soaked.counts, "lost": lost, "megabytes": soaked.megabytes}


def run_threads(works, timeout=None):
    """Run each in a thread, and count those that are not done in time."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    end = None if timeout is None else time.monotonic() + timeout
    for thread in threads:
        thread.join(None if end is None else max(end - time.monotonic(), 0))
    return sum(thread.is_alive() for thread in threads)

"""What the local model does for long: thousands of requests, people who leave, errors and long prompts among them.

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
from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.providers import find_provider

# Small enough to be full soon, so that what grows after that should not.
SETTINGS = LocalSettings(image_cache_bytes=2**23, prefix_cache_bytes=2**23, max_batch_size=16)
FORM = ResponseFormat(
    "json_schema",
    schema={
        "type": "object",
        "properties": {"color": {"type": "string", "maxLength": 8}},
        "required": ["color"],
    },
)
PATIENCE_S = 600.0


def backend():
    return LocalBackend(find_provider("local"), local=SETTINGS)


def ask(words, *images, tokens=24, **options):
    parts = (*(image_from_any(image) for image in images), Text(words))
    sampling = SamplingParams(max_tokens=tokens, temperature=0)
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling, **options)


def image(number):
    """Make an image like no other."""
    return PIL.Image.new("RGB", (160, 160), (number % 256, 80, number // 256 % 256))


def question(number):
    """One of many, with and without an image, some kept to a form."""
    return [
        lambda: ask(f"Say {number}"),
        lambda: ask("Describe the image.", image(number)),
        lambda: ask("What color is it?", image(number), response_format=FORM),
        lambda: ask(f"Repeat: {number} " + "Paris London " * (number % 40)),
    ][number % 4]()


def resident():
    """Bytes of memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def many(requests, threads=8):
    """Answer many requests from several threads, and look at the memory meanwhile.

    Returns:
        How many were answered, seconds of the processor, and megabytes of memory after each fifth.

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
    run([work] * threads)
    return {
        "requests": requests,
        "answered": len(answered),
        "seconds": time.process_time() - began,
        "megabytes": marks,
    }


@dataclass
class Soak:
    """A crowd of all kinds, for some seconds.

    Attributes:
        counts: How often each kind came to its proper end.
        lost: What did not.

    """

    seconds: float
    counts: dict = field(default_factory=dict)
    lost: list = field(default_factory=list)

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
            self.leave,
            self.cancel,
            self.fail,
            self.read_long,
        ]
        while time.monotonic() < self.end:
            kind = chance.choice(kinds)
            try:
                kind(chance)
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                self.lost.append(f"{kind.__name__}: {type(error).__name__}: {error}")

    def answer(self, chance):
        """Ask what was asked before anyone else was there, and hear the same."""
        number = chance.randrange(len(self.known))
        said = self.backend.complete(self.known[number]).text
        if said != self.answers[number]:
            raise AssertionError(f"{said!r} and not {self.answers[number]!r}")

    def answer_async(self, chance):
        numbers = [chance.randrange(len(self.known)) for _ in range(3)]

        async def together():
            answers = (self.backend.acomplete(self.known[number]) for number in numbers)
            return await asyncio.wait_for(asyncio.gather(*answers), PATIENCE_S)

        said = [reply.text for reply in asyncio.run(together())]
        if said != [self.answers[number] for number in numbers]:
            raise AssertionError(said)

    def leave(self, chance):
        """Hang up after some pieces."""
        stream = self.backend.stream(endless(chance))
        for _ in range(chance.randint(1, 20)):
            next(stream, None)  # it may have come to its end before
        stream.close()

    def cancel(self, chance):
        async def leave():
            task = asyncio.create_task(self.backend.acomplete(endless(chance)))
            await asyncio.sleep(chance.random() / 5)
            if not task.cancel():
                return  # it had come to its end before
            await asyncio.wait([task], timeout=PATIENCE_S)
            if not task.cancelled():
                raise AssertionError("it was not cancelled")

        asyncio.run(leave())

    def fail(self, chance):
        """Ask for what can't be."""
        request, expected = chance.choice(
            [
                (ask("so " * 3000), UnsupportedInputError),
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

    def read_long(self, chance):
        reply = self.backend.complete(
            ask(f"{chance.random()} " + "and so " * chance.randint(200, 400), tokens=4)
        )
        if reply.usage.input_tokens < 400:
            raise AssertionError(reply)

    def idle(self):
        """Wait until nobody is being answered; False where that does not come about."""
        worker, end = get_engine_thread("tiny", SETTINGS), time.monotonic() + 20
        while worker.busy and time.monotonic() < end:
            time.sleep(0.01)
        return not worker.busy


def endless(chance):
    """Ask for an answer that goes on, by chance of a thousand words a token."""
    sampling = SamplingParams(max_tokens=300, temperature=50.0, top_k=1000, seed=chance.randrange(2**31))
    return replace(ask(f"Say {chance.random()}"), sampling=sampling)


def soak(seconds, threads=12):
    """Let a crowd loose for so long."""
    crowd = Soak(seconds)
    late = run([lambda seed=seed: crowd.work(seed) for seed in range(threads)], seconds + PATIENCE_S)
    lost = [
        *crowd.lost,
        *["a thread hangs"] * late,
        *([] if crowd.idle() else ["someone is still being answered"]),
    ]
    return {"seconds": seconds, "counts": crowd.counts, "lost": lost}


def run(works, patience=None):
    """Run them in threads, and count those that are not done in time."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    end = None if patience is None else time.monotonic() + patience
    for thread in threads:
        thread.join(None if end is None else max(end - time.monotonic(), 0))
    return sum(thread.is_alive() for thread in threads)

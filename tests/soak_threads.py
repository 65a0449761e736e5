"""64 threads and 10 event loops use three models in one process, with failures at random; JSON says what became of the calls.

`python -m tests.soak_threads 300` runs for five minutes. It is a process of its own, so that threads and memory are its alone.
"""

import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage

from llama_vision.core.errors import LlamaVisionError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import HANG_UP, STALL, Answer, Emulator, chunks, completion, event_stream, refusal

THREADS, LOOPS, TASKS = 64, 10, 4
MAX_CALL_S = 30.0
TIMEOUT_S = 2.0
TEXT = "one two three"


class Faulty:
    """Answers, or fails in one of the ways that servers do."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def __call__(self, received):
        reply = completion(TEXT)
        begun = event_stream(next(iter(chunks(reply))), HANG_UP)
        plans = [
            (60, reply),
            (8, refusal(429, retry_after=0.05)),
            (8, refusal(500)),
            (8, Answer((HANG_UP,))),
            (8, begun if received.streamed else Answer((b"{", HANG_UP))),
            (4, Answer((STALL,), headers={"content-type": "text/event-stream"})),
            (4, Answer((b'{"choices": [',))),
        ]
        weights, answers = zip(*plans, strict=True)
        return self._random.choices(answers, weights)[0]


class Soak:
    """The calls and their outcomes."""

    def __init__(self, models, seconds):
        self.models = models
        self.end = time.monotonic() + seconds
        self.outcomes = Counter()
        self.wrong = []
        self.slowest = 0.0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def count(self, name):
        """Count one call by how it ended; anything but a reply, our errors and a cancellation is wrong."""
        began, outcome = time.monotonic(), "answered"
        try:
            yield
        except (LlamaVisionError, TimeoutError) as error:
            outcome = type(error).__name__
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            outcome = "wrong"
            self.wrong.append(f"{name}: {error!r}"[:300])
        with self._lock:
            self.outcomes[outcome] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def check(self, name, text, *, whole):
        if name != "local" and not (text == TEXT if whole else TEXT.startswith(text)):
            self.wrong.append(f"{name}: {text!r}"[:300])

    def sync_thread(self, seed):
        chance = random.Random(seed)
        while time.monotonic() < self.end:
            name = chance.choice(list(self.models))
            with self.count(name):
                self.ask(name, self.models[name], chance)

    def ask(self, name, model, chance):
        if chance.random() < 0.5:
            self.check(name, text_of(model, call(model)), whole=True)
            return
        leaves = chance.random() < 0.3
        stream, text = stream_of(model), ""
        with contextlib.closing(stream):
            for piece in stream:
                text += piece
                if leaves:
                    break
        self.check(name, text, whole=not leaves)

    def loop_thread(self, seed):
        asyncio.run(self.tasks(seed))

    async def tasks(self, seed):
        await asyncio.gather(*(self.task(seed * TASKS + number) for number in range(TASKS)))
        for model in self.models.values():
            await model.aclose()

    async def task(self, seed):
        chance = random.Random(1000 + seed)
        while time.monotonic() < self.end:
            name = chance.choice(list(self.models))
            with self.count(name):
                limit = chance.choice([None, None, None, 0.05, 0.3])
                async with asyncio.timeout(limit):
                    await self.aask(name, self.models[name], chance)

    async def aask(self, name, model, chance):
        if chance.random() < 0.5:
            self.check(name, text_of(model, await acall(model)), whole=True)
            return
        text = "".join([piece async for piece in astream_of(model)])
        self.check(name, text, whole=True)


def call(model):
    return (
        model.invoke("Say hi") if isinstance(model, ChatLlamaVision) else model.chat([ChatMessage("Say hi")])
    )


async def acall(model):
    if isinstance(model, ChatLlamaVision):
        return await model.ainvoke([HumanMessage("Say hi")])
    return await model.achat([ChatMessage("Say hi")])


def text_of(model, reply):
    return reply.text if isinstance(model, ChatLlamaVision) else reply.message.content


def stream_of(model):
    if isinstance(model, ChatLlamaVision):
        yield from (chunk.text for chunk in model.stream("Say hi"))
    else:
        yield from (response.delta or "" for response in model.stream_chat([ChatMessage("Say hi")]))


async def astream_of(model):
    if isinstance(model, ChatLlamaVision):
        async for chunk in model.astream("Say hi"):
            yield chunk.text
    else:
        async for response in await model.astream_chat([ChatMessage("Say hi")]):
            yield response.delta or ""


def megabytes():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def num_sockets():
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def run(seconds):
    with Emulator() as first, Emulator() as second:
        first.always(Faulty(1))
        second.always(Faulty(2))
        options = {"provider": "deepinfra", "timeout": TIMEOUT_S, "max_retries": 1}
        models = {
            "local": ChatLlamaVision(provider="local", max_tokens=8),
            "langchain": ChatLlamaVision(base_url=first.base_url, api_key=first.api_key, **options),
            "llamaindex": LlamaVision(api_base=second.base_url, api_key=second.api_key, **options),
        }
        models["local"].invoke("Say hi")
        before = threading.active_count(), num_sockets()
        soak = Soak(models, seconds)
        targets = [(soak.sync_thread, number) for number in range(THREADS)]
        targets += [(soak.loop_thread, number) for number in range(LOOPS)]
        threads = [threading.Thread(target=target, args=(seed,), daemon=True) for target, seed in targets]
        for thread in threads:
            thread.start()
        memory = []
        for _ in range(6):
            time.sleep(seconds / 6)
            for emulator in (first, second):
                emulator.requests.clear()
            memory.append(megabytes())
        for thread in threads:
            thread.join(max(0.0, soak.end + MAX_CALL_S - time.monotonic()))
        hanging = sum(thread.is_alive() for thread in threads)
        for model in (models["langchain"], models["llamaindex"]):
            model.close()
        limit = time.monotonic() + 15  # threads that watch end by themselves after some idle seconds
        while (threading.active_count(), num_sockets()) > before and time.monotonic() < limit:
            time.sleep(0.1)
        return {
            "outcomes": dict(soak.outcomes),
            "wrong": soak.wrong[:5],
            "num_wrong": len(soak.wrong),
            "hanging": hanging,
            "slowest_s": round(soak.slowest, 2),
            "megabytes": memory,
            "threads": (before[0], threading.active_count()),
            "sockets": (before[1], num_sockets()),
        }


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]))))

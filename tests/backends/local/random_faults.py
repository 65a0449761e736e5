"""Calls of the local model and faults of all kinds in random order, until a time is over: `random_faults.py SEED SECONDS`.

Three models are asked by threads and by tasks of two event loops. Meanwhile requests are cancelled and fail, memory runs out,
threads are killed or can't be started, panics pass by `except Exception`, models are unloaded, and the process forks. Each call
has to end soon, with the right reply or with an error of ours; a panic may end one call only; in the end all models reply again,
and the process ends in the middle of streams, without a word.
"""

import asyncio
import collections
import contextlib
import ctypes
import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings

import torch

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings, engine_thread
from llama_vision.backends.local.block_allocator import BlockAllocator
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.input_processor import InputProcessor
from llama_vision.backends.local.sampler import Sampler
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider

LIMIT_S = 30.0
"""Of one call, on a machine that is busy with other tests too."""

MOST_CALLS = 24
SAMPLED = SamplingParams(max_tokens=40, temperature=50.0, top_k=1000)
CIRCLE = image_from_any(SAMPLE_IMAGES["circle"])

KINDS = {
    "hi": ((Text("Say hi"),), SamplingParams(), "Hi"),
    "image": ((CIRCLE, Text("What color is the circle?")), SamplingParams(), "blue"),
    "sampled": ((Text("Hi"),), SAMPLED, None),
    "long": ((Text("Hi"),), SamplingParams(max_tokens=400, temperature=50.0, top_k=1000), None),
    "broken image": (
        (Image(CIRCLE.data[:200], "image/png"), Text("What?")),
        SamplingParams(),
        LlamaVisionError,
    ),
    "too long": ((Text("so " * 3000),), SamplingParams(), LlamaVisionError),
}
"""Parts, sampling, and the reply: a text, any, or none."""


class Panic(BaseException):
    """No Exception, as pyo3's."""


class Faults:
    """Methods that raise at their next call once they are armed."""

    PLACES = (
        *(
            (owner, name)
            for owner, name in [
                (Engine, "_decode"),
                (Engine, "_prefill"),
                (Engine, "_admit"),
                (BlockAllocator, "allocate"),
            ]
        ),
        *((engine_thread.EngineThread, name) for name in ("_take_prepared", "_next_to_prepare", "_end")),
        (InputProcessor, "process"),
        (Sampler, "accept_token"),
        (Sampler, "exponential_noise"),
        (threading.Thread, "start"),
    )
    OF_ONE_REQUEST = ("process", "accept_token", "exponential_noise")

    def __init__(self):
        self.armed = {}
        for owner, name in self.PLACES:
            self._wrap(owner, name, getattr(owner, name))

    def _wrap(self, owner, name, method):
        def wrapper(*args, **options):
            is_ours = name != "start" or args[0].name.startswith("llama-vision")
            if is_ours and (error := self.armed.pop(name, None)) is not None:
                raise error
            return method(*args, **options)

        setattr(owner, name, wrapper)

    def arm(self, chance, number):
        """Arm one place: a panic anywhere, or what is usual there."""
        name = chance.choice(self.PLACES)[1]
        if name == "start":
            self.armed[name] = RuntimeError("can't start new thread")
        elif name in self.OF_ONE_REQUEST:
            self.armed[name] = Panic(f"number {number}.")
        else:
            self.armed[name] = chance.choice(
                [torch.OutOfMemoryError("full"), MemoryError(), SystemExit(), Panic("lost")]
            )


class Calls:
    """Calls in flight, and what became of the others."""

    def __init__(self):
        self.began = {}
        self.outcomes = collections.Counter()
        self.wrong = []
        self.panics = collections.Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def watch(self, kind):
        """Note when a call began, and judge how it ended: the body yields into `found`."""
        token, found, expected = object(), [], KINDS[kind][2]
        self.began[token] = time.monotonic(), kind
        try:
            yield found
        except LlamaVisionError as error:
            with self._lock:
                self.outcomes[type(error).__name__] += 1
                if "Panic: number" in str(error):
                    self.panics[str(error)] += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.outcomes["cancelled"] += 1
        except BaseException as error:  # noqa: BLE001 - errors that are not ours are what is looked for
            self.wrong.append((kind, repr(error)))
        else:
            text = found[0]
            if expected is LlamaVisionError or (
                expected is not None and text is not None and text != expected
            ):
                self.wrong.append((kind, text))
            self.outcomes["replied" if text is not None else "left"] += 1
        finally:
            del self.began[token]

    def check(self):
        """Fail where a call takes too long or ended wrongly."""
        assert not self.wrong, self.wrong
        assert all(count == 1 for count in self.panics.values()), self.panics
        for began, kind in list(self.began.values()):
            if time.monotonic() - began > LIMIT_S:
                faulthandler.dump_traceback()
                raise AssertionError(f"{kind} hangs")


def request_of(kind):
    parts, sampling, _ = KINDS[kind]
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling)


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("llama-vision")]


class Driver:
    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.faults, self.calls = Faults(), Calls()
        settings = [
            LocalSettings(),
            LocalSettings(max_batch_size=2),
            LocalSettings(max_batch_size=5, max_waiting=6),
        ]
        self.backends = [LocalBackend(find_provider("local"), local=one) for one in settings]
        self.loops = [asyncio.new_event_loop() for _ in range(2)]
        for loop in self.loops:
            loop.set_exception_handler(lambda *_: None)  # says that tasks are pending in the end
            threading.Thread(target=loop.run_forever, daemon=True).start()
        self.futures, self.streams, self.num_armed = [], [], 0

    def drive(self, seconds):
        steps = {
            self.ask: 40,
            self.ask_async: 40,
            self.cancel: 10,
            self.open_stream: 5,
            self.arm: 10,
            self.kill: 5,
            self.unload: 2,
            self.fork: 1,
        }
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.chance.choices([*steps], [*steps.values()])[0]()
            self.calls.check()
            time.sleep(self.chance.choice([0, 0.001, 0.02]))
            while len(self.calls.began) > MOST_CALLS:
                time.sleep(0.01)
                self.calls.check()

    def ask(self):
        kind, backend = self.chance.choice([*KINDS]), self.chance.choice(self.backends)
        leave_after = self.chance.choice([None, None, 1, 3])

        def work():
            with self.calls.watch(kind) as found:
                if leave_after is None:
                    found.append(backend.complete(request_of(kind)).text)
                    return
                found.append(None)
                with contextlib.closing(backend.stream(request_of(kind))) as events:
                    for number, _ in enumerate(events):
                        if number >= leave_after and KINDS[kind][2] is not LlamaVisionError:
                            break
                if KINDS[kind][2] is LlamaVisionError:
                    found[0] = "a reply"

        threading.Thread(target=work, daemon=True).start()

    def ask_async(self):
        kind, backend = self.chance.choice([*KINDS]), self.chance.choice(self.backends)
        streamed = self.chance.random() < 0.5

        async def work():
            with self.calls.watch(kind) as found:
                if streamed:
                    events = [event async for event in backend.astream(request_of(kind))]
                    found.append(Reply.from_events(events).text)
                else:
                    found.append((await backend.acomplete(request_of(kind))).text)

        self.futures.append(asyncio.run_coroutine_threadsafe(work(), self.chance.choice(self.loops)))

    def cancel(self):
        self.futures = [future for future in self.futures if not future.done()]
        if self.futures:
            self.chance.choice(self.futures).cancel()

    def open_stream(self):
        """Keep a few streams that nobody reads."""
        with contextlib.suppress(LlamaVisionError):
            stream = self.chance.choice(self.backends).stream(request_of("long"))
            next(stream)
            self.streams.append(stream)
        del self.streams[:-3]

    def arm(self):
        self.num_armed += 1
        self.faults.arm(self.chance, self.num_armed)

    def kill(self):
        threads = [
            thread
            for one in list(engine_thread._threads.values())
            for thread in one._threads
            if thread.is_alive()
        ]
        if threads:
            victim = ctypes.c_ulong(self.chance.choice(threads).ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(victim, ctypes.py_object(SystemExit))

    def unload(self):
        self.chance.choice(self.backends).close()

    def fork(self):
        stream = self.streams[-1] if self.streams else None
        if (child := os.fork()) == 0:
            self.faults.armed.clear()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.dump_traceback_later(LIMIT_S - 2)
            signal.alarm(int(LIMIT_S))
            os._exit(self._in_child(stream))
        _, status = os.waitpid(child, 0)
        assert status == 0, f"the child of a fork ended with {os.waitstatus_to_exitcode(status)}"

    def _in_child(self, stream):
        try:
            if stream is not None:
                with contextlib.suppress(LlamaVisionError):
                    collections.deque(stream, maxlen=0)
            try:
                return 0 if self.backends[0].complete(request_of("hi")).text == "Hi" else 3
            except LlamaVisionError as error:
                return 0 if "forked while" in str(error) else 4
        except BaseException:  # noqa: BLE001 - told by the exit code
            return 5

    def settle(self):
        """All calls end, and all models reply again."""
        self.faults.armed.clear()
        while self.calls.began:
            time.sleep(0.01)
            self.calls.check()
        for backend in self.backends:
            for attempt in range(4):  # killed threads end when they run next
                try:
                    assert backend.complete(request_of("hi")).text == "Hi"
                    break
                except LlamaVisionError:
                    assert attempt < 3
        until = time.monotonic() + LIMIT_S
        while (
            len(threads := our_threads()) > 2 * len(self.backends) + 2
        ):  # those of unloaded models are ending
            assert time.monotonic() < until, threads
            time.sleep(0.01)


def main(seed, seconds):
    warnings.simplefilter("ignore")  # of threads beside a fork
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = sys.unraisablehook = lambda _: (
        None
    )  # of threads that were killed at an awkward place
    logging.getLogger("llama_vision").addHandler(logging.NullHandler())
    driver = Driver(seed)
    driver.drive(seconds)
    driver.settle()
    threading.excepthook, sys.unraisablehook = hooks
    streams = [backend.stream(request_of("long")) for backend in driver.backends]
    for stream in streams:
        next(stream)
    for loop in driver.loops:
        driver.ask_async()
        loop.call_soon_threadsafe(loop.stop)
    print(dict(driver.calls.outcomes), len(driver.calls.panics), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))

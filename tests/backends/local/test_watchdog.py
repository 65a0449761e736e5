"""Nobody waits for a thread that is gone: whatever ends the threads of a local model, each caller is told so at once."""

import asyncio
import contextlib
import ctypes
import shutil
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace

import pytest

from llama_vision import ChatRequest, Message, SamplingParams, Text
from llama_vision.backends.local import LocalBackend, LocalSettings, engine_thread
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.engine_thread import EngineThread, get_engine_thread
from llama_vision.backends.local.input_processor import InputProcessor
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH
from llama_vision.backends.local.sampler import Sampler
from llama_vision.backends.stop_strings import StopStringFilter
from llama_vision.core.errors import LocalModelError
from llama_vision.core.events import Finished, TextDelta
from llama_vision.providers import find_provider
from tests.emulator.asking import ask as ask_in

LONG = SamplingParams(max_tokens=300, temperature=50.0, top_k=1000, seed=8)
SETTINGS = LocalSettings(max_batch_size=7)  # which no other test has


class Panic(BaseException):
    """As pyo3's PanicException, which a panic of llguidance or tokenizers raises: no Exception."""


@pytest.fixture
def backend():
    backend = LocalBackend(find_provider("local"), local=SETTINGS)
    yield backend
    backend.close()


def ask(text, **options):
    return ChatRequest("tiny", (Message("user", (Text(text),)),), **options)


def raise_once(monkeypatch, owner, name, error, *, when=lambda *_: True):
    """Make a method raise at its next call for which `when` holds, in no thread of a model of another test."""
    method, raised = getattr(owner, name), []

    def replacement(self, *args):
        is_ours = not isinstance(self, EngineThread) or self._settings == SETTINGS
        if not raised and is_ours and when(self, *args):
            raised.append(True)
            raise error
        return method(self, *args)

    monkeypatch.setattr(owner, name, replacement)


def assert_works(backend):
    assert backend.complete(ask("Say hi")).text == "Hi"


def assert_told_at_once(backend, way, request, match):
    began = time.monotonic()
    with pytest.raises(LocalModelError, match=match):
        ask_in(backend, way, request)
    assert time.monotonic() - began < 20.0  # of which loading is the most


@pytest.mark.parametrize(
    ("way", "method", "error"),
    [
        ("complete", "_take_prepared", Panic("lost")),
        ("acomplete", "_next_to_prepare", MemoryError("lost")),
        ("stream", "_ensure_engine", SystemExit("lost")),
        ("astream", "_take_prepared", MemoryError("lost")),
    ],
)
@pytest.mark.slow_beyond(1)
def test_a_thread_that_ends_tells_who_waits_and_the_next_call_works(backend, monkeypatch, way, method, error):
    # A thread of the test before may be about to end.
    raise_once(monkeypatch, EngineThread, method, error, when=lambda thread, *_: not thread._must_end())
    match = rf"has ended \({type(error).__name__}: lost\).*loads the model again"
    assert_told_at_once(backend, way, ask("Hi", sampling=LONG), match)
    assert_works(backend)


@pytest.mark.parametrize("way", ["complete", "astream"])
@pytest.mark.slow_beyond(1)
def test_a_thread_that_ends_without_a_word_is_noticed_within_a_second(backend, monkeypatch, way):
    assert_works(backend)
    # Not while it idles after the call before: then the next call would load the model anew, and be answered.
    raise_once(
        monkeypatch, EngineThread, "_take_prepared", SystemExit(), when=lambda _, engine: engine.num_running
    )
    monkeypatch.setattr(EngineThread, "_set_failure", lambda self, error: None)
    monkeypatch.setattr(EngineThread, "_end", lambda self: None)
    began = time.monotonic()
    assert_told_at_once(backend, way, ask("Say hi", sampling=LONG), r"has ended \(it was killed\)")
    assert time.monotonic() - began < 5.0  # 0.5 on an idle machine
    monkeypatch.undo()
    assert_works(backend)


@pytest.mark.slow
def test_running_requests_are_told_too(backend, monkeypatch):
    streams = [backend.stream(ask("Hi", sampling=LONG)) for _ in range(2)]
    for stream in streams:
        next(stream)
    raise_once(monkeypatch, EngineThread, "_next_to_prepare", Panic("lost"))
    with contextlib.suppress(LocalModelError):  # the thread gets there while or after this is answered
        backend.complete(ask("Say hi", sampling=SamplingParams(max_tokens=1)))
    for stream in streams:
        with pytest.raises(LocalModelError, match="Panic: lost"):
            list(stream)
    assert_works(backend)


def kill(thread):
    """Raise SystemExit in a thread, wherever it is."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


@pytest.mark.parametrize("number", [0, 1], ids=["engine", "preparing"])
@pytest.mark.slow
def test_a_killed_thread_leaves_nobody_waiting(backend, number):
    for _ in range(2):
        stream = backend.stream(ask("Hi", sampling=LONG))
        next(stream)
        kill(get_engine_thread("tiny", SETTINGS)._threads[number])
        began = time.monotonic()
        try:
            assert_works(backend)
            stream.close()
        except LocalModelError:
            assert time.monotonic() - began < 10.0
        assert_works(backend)


def test_a_system_without_threads_to_spare_is_an_error_of_the_call(backend, monkeypatch):
    cannot = RuntimeError("can't start new thread")
    raise_once(
        monkeypatch, threading.Thread, "start", cannot, when=lambda thread: thread.name == "llama-vision tiny"
    )
    raise_once(
        monkeypatch,
        threading.Thread,
        "start",
        cannot,
        when=lambda thread: thread.name == "llama-vision tiny requests",
    )
    for _ in range(2):
        assert_told_at_once(backend, "complete", ask("Say hi"), "can't start new thread")
    assert_works(backend)


def is_broken(request):
    return request.sampling.max_tokens == 77


BROKEN = SamplingParams(max_tokens=77, temperature=1.0)


@pytest.mark.parametrize(
    ("way", "place"), [("complete", "preparing"), ("acomplete", "sampling"), ("astream", "appending")]
)
@pytest.mark.slow_beyond(1)
def test_a_panic_in_one_request_ends_that_request_only(backend, monkeypatch, way, place):
    other = backend.stream(ask("Hi", sampling=LONG))
    next(other)
    match place:
        case "preparing":
            raise_once(monkeypatch, InputProcessor, "process", Panic("lost"))
        case "sampling":
            raise_once(
                monkeypatch,
                Sampler,
                "exponential_noise",
                Panic("lost"),
                when=lambda sampler, _: sampler.temperature == 1,
            )
        case "appending":
            raise_once(
                monkeypatch,
                Sampler,
                "accept_token",
                Panic("lost"),
                when=lambda sampler, _: sampler.temperature == 1,
            )
    assert_told_at_once(backend, way, ask("Say hi", sampling=BROKEN), "failed: Panic: lost")
    assert sum(isinstance(event, TextDelta) for event in other) > 100
    assert_works(backend)


@pytest.mark.parametrize("way", ["complete", "acomplete"])
@pytest.mark.slow_beyond(1)
def test_a_panic_at_the_very_end_of_a_reply_is_told(backend, monkeypatch, way):
    raise_once(monkeypatch, StopStringFilter, "flush", Panic("lost"))
    assert_told_at_once(backend, way, ask("Say hi"), "failed: Panic: lost")
    assert_works(backend)


def test_a_fault_of_the_gpu_is_told_to_all_with_what_to_do(backend, monkeypatch):
    assert_works(backend)
    others = [backend.stream(ask("Hi", sampling=LONG)) for _ in range(2)]
    for other in others:
        next(other)
    raise_once(monkeypatch, Engine, "_decode", RuntimeError("CUDA error: device-side assert triggered"))
    for other in others:
        with pytest.raises(LocalModelError, match=r"restart Python.*device-side assert"):
            list(other)


@pytest.mark.slow
def test_closing_frees_model_and_threads_and_a_later_call_loads_again(tmp_path):
    model = str(
        shutil.copytree(TINY_MODEL_PATH, tmp_path / "model")
    )  # engines of one model share its weights
    settings = LocalSettings(max_batch_size=2)
    backend = LocalBackend(find_provider("local"), local=settings)
    request = replace(ask("Say hi"), model=model)
    assert backend.complete(request).text == "Hi"
    thread = get_engine_thread(model, settings)
    weights = weakref.ref(thread._engine.input_processor._model)
    backend.close()
    for worker in thread._threads:
        worker.join(5)
    assert thread.failure() is not None
    assert weights() is None
    assert backend.complete(request).text == "Hi"
    asyncio.run(backend.aclose())


@pytest.mark.slow
def test_closing_in_the_middle_lets_requests_end(backend):
    stream = backend.stream(ask("Hi", sampling=SamplingParams(max_tokens=200, temperature=50.0, seed=8)))
    next(stream)
    backend.close()
    assert_works(backend)
    assert isinstance(list(stream)[-1], Finished)


@pytest.mark.slow
def test_many_settings_leave_few_threads():
    for size in range(20, 32):
        backend = LocalBackend(find_provider("local"), local=LocalSettings(max_batch_size=size))
        assert backend.complete(ask("Say hi", sampling=SamplingParams(max_tokens=1))).text
    most = 2 * (
        engine_thread._MAX_IDLE + 2
    )  # with the last, and the one before, which may not have been idle yet
    limit = time.monotonic() + 10
    while num_engine_threads() > most and time.monotonic() < limit:
        time.sleep(0.01)
    assert num_engine_threads() <= most


def num_engine_threads():
    return sum(thread.name.startswith("llama-vision tiny") for thread in threading.enumerate())


PRELUDE = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # of threads beside a fork: what happens then is the point
from llama_vision import ChatRequest, Message, SamplingParams, Text
from llama_vision.backends import create_backend
from llama_vision.providers import find_provider
backend = create_backend(find_provider("local"))
def ask(text, **options): return ChatRequest("tiny", (Message("user", (Text(text),)),), **options)
def endless(): return ask("Hi", sampling=SamplingParams(max_tokens=1500, temperature=50.0, top_k=1000, seed=8))
def in_child(work):
    if (child := os.fork()) == 0:
        signal.alarm(30)
        try: print(work(), flush=True)
        except Exception as error: print(type(error).__name__, error, flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code], check=False, capture_output=True, text=True, timeout=90
    )


@pytest.mark.slow
def test_a_stream_goes_on_in_the_parent_of_a_fork_and_the_child_is_told():
    done = run("""
stream = backend.stream(endless())
next(stream)
in_child(lambda: list(stream))
in_child(lambda: backend.complete(ask("Say hi")).text)
print(len(list(stream)) > 100)
""")
    stream, reply, parent = done.stdout.splitlines()
    assert stream.startswith("LocalModelError This process was forked while the request was running")
    assert (reply, parent, done.stderr) == ("Hi", "True", "")


@pytest.mark.slow
def test_a_process_that_was_forked_while_a_model_was_loading_says_so():
    done = run("""
threading.Thread(target=lambda: backend.complete(ask("Say hi"))).start()
while "torch" not in sys.modules: time.sleep(0.001)
in_child(lambda: backend.complete(ask("Say hi")).text)
print(backend.complete(ask("Say hi")).text)
""")
    child, parent = done.stdout.splitlines()
    assert child.startswith(
        "LocalModelError This process was forked while its parent was loading a local model"
    )
    assert (parent, done.stderr) == ("Hi", "")


@pytest.mark.slow
def test_debugging_dumps_the_threads_of_a_model_that_died(monkeypatch):
    monkeypatch.setenv("LLAMA_VISION_DEBUG", "1")
    done = run("""
from llama_vision.backends.local.engine_thread import EngineThread
def lost(self, engine): raise SystemExit("lost")
EngineThread._take_prepared = lost
try: backend.complete(ask("Say hi"))
except Exception as error: print(type(error).__name__)
os.kill(os.getpid(), signal.SIGUSR1)
""")
    assert done.stdout == "LocalModelError\n"
    assert "in lost" in done.stderr
    assert done.stderr.count("Current thread") == 2


LEFT = {
    "a stream that is open": "stream = backend.stream(endless()); next(stream)",
    "an asynchronous stream that is open": """
import asyncio
async def main():
    global stream
    stream = backend.astream(endless()); await anext(stream)
asyncio.run(main())""",
    "a loop that was closed in the middle of calls": """
import asyncio
loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda *_: None)  # says that tasks were pending
stream = backend.astream(endless())
async def main():
    global calls
    calls = [asyncio.ensure_future(work) for work in (backend.acomplete(endless()), stream.__anext__())]
    await asyncio.sleep(0.3)
loop.run_until_complete(main())
loop.close()""",
    "nested loops": """
import asyncio, nest_asyncio
nest_asyncio.apply()
async def main():
    global stream
    stream = backend.astream(endless()); await anext(stream)
    assert asyncio.get_event_loop().run_until_complete(backend.acomplete(ask("Say hi"))).text == "Hi"
asyncio.run(main())""",
    "an interrupt while torch is imported": """
def interrupt():
    while "torch" not in sys.modules: time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try: backend.complete(ask("Say hi"))
except KeyboardInterrupt: pass""",
    "a thread that waits": """
def wait():
    try: backend.complete(endless())
    except Exception: pass  # the program is ending
threading.Thread(target=wait, daemon=True).start()
backend.complete(ask("Say hi"))""",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", LEFT.values(), ids=LEFT)
def test_python_is_left_quietly(code):
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

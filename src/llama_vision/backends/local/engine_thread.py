"""Two threads per model: the engine thread loads it and runs its engine, the other one prepares requests meanwhile.

So an event loop is never blocked, a slow consumer delays nobody, and no decode step waits for an image to be decoded.
What a request raises, whatever it is, fails that request. Where a thread itself ends, all its requests fail, consumers
find out at the latest while they wait (`EngineThread.failure`), and the next request starts other threads.
"""

import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING
from weakref import WeakSet, finalize

from llama_vision.backends.local.config import LocalSettings, check_model
from llama_vision.backends.local.sequence import EngineOutput, Sequence, SequenceStatus
from llama_vision.core.errors import LocalModelError
from llama_vision.core.request import ChatRequest

if TYPE_CHECKING:
    from llama_vision.backends.local.engine import Engine
    from llama_vision.backends.local.input_processor import InputProcessor

_SHUTDOWN_TIMEOUT_S = 5.0
_IMPORT_TIMEOUT_S = 30.0
"""At exit while torch is being imported, which would otherwise print tracebacks."""

_MAX_ADMITTED_PER_STEP = 4
"""To encode an image takes longer than a decode step, for which the running sequences wait."""

_MAX_IDLE = 4
"""Idle engines that are kept, each with two threads and a KV cache."""

_logger = logging.getLogger("llama_vision")


class _Step(threading.local):
    """The step of the engine that the thread runs: what is to be called when it is over; None where there is none."""

    callbacks: list[Callable[[], None]] | None = None


_step = _Step()


class EngineThread:
    """Loads a model with the first request, and serves requests in order of arrival, several at a time."""

    def __init__(self, model: str, settings: LocalSettings) -> None:
        """Start the engine thread; LocalModelError where the system allows no more threads."""
        self._model = model
        self._settings = settings
        self._waiting: deque[Sequence] = deque()
        self._unprepared: deque[Sequence] = deque()  # those of them that the preparing thread has not begun
        self._condition = threading.Condition()
        self._retired = False
        self._stopping = False
        self._failure: str | None = None
        self._pid = os.getpid()
        self._engine: Engine | None = None
        self.is_importing = self.is_loading = False
        self._threads = [threading.Thread(target=self._run, name=f"llama-vision {model}", daemon=True)]
        try:
            self._threads[0].start()
        except RuntimeError as error:
            raise LocalModelError(f"The local model can't start a thread: {error}.") from error
        _started.add(self)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        engine = self._engine
        return not (self._waiting or self.is_loading or (engine is not None and engine.num_running))

    def failure(self) -> LocalModelError | None:
        """Tell why no output will come any more: a thread is gone. None while both are there."""
        if self._pid != os.getpid():
            return LocalModelError(_FORKED_MESSAGE)
        if self._failure is None and all(thread.is_alive() for thread in self._threads):
            return None
        return LocalModelError(self._failure or _ended_message("it was killed"))

    def submit(self, request: ChatRequest, on_output: Callable[[EngineOutput], None]) -> Sequence:
        """Queue a request; setting `cancelled` of its sequence removes it. `on_output` must not block.

        Raises:
            LocalModelError: Too many wait already, or the program is ending.
        """
        seq = Sequence(request, on_output)
        with self._condition:
            if self._stopping:
                raise LocalModelError(self._failure or _SHUTDOWN_MESSAGE)
            if len(self._waiting) >= self._settings.max_waiting:
                self._waiting = _without_cancelled(self._waiting)
                self._unprepared = _without_cancelled(self._unprepared)
            if len(self._waiting) >= self._settings.max_waiting:
                raise LocalModelError(
                    f"{len(self._waiting)} requests wait for the local model already. Ask for less at a time "
                    "(max_concurrency in LangChain), or set LocalSettings(max_waiting=...) higher."
                )
            self._waiting.append(seq)
            self._unprepared.append(seq)
            self._condition.notify_all()
        return seq

    def retire(self) -> None:
        """End the threads and free the model once all requests are answered. No request may follow."""
        with self._condition:
            self._retired = True
            self._condition.notify_all()

    def stop(self) -> None:
        """End the threads, in the middle of replies if need be."""
        self.request_stop()
        self.join()

    def request_stop(self) -> None:
        """As `stop`, without waiting for it."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    def join(self, timeout: float = _SHUTDOWN_TIMEOUT_S) -> None:
        """Wait until the threads have ended, for so many seconds at most."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - whatever it is, consumers wait for it
            self._set_failure(error)
        finally:
            self.request_stop()
            self._end()

    def _serve(self) -> None:
        while (engine := self._ensure_engine()) is not None and (
            seqs := self._take_prepared(engine)
        ) is not None:
            with _put_off_calls():
                try:
                    engine.add_sequences(seqs)
                    engine.step()
                except BaseException as error:  # noqa: BLE001 - as in `_run`
                    engine.abort_all(error)
                    for seq in seqs:
                        seq.fail(error)

    def _ensure_engine(self) -> "Engine | None":
        """Load the model with the first request; None where the engine is not needed any more.

        Where loading fails, all waiting requests fail, and the next one loads again.
        """
        while self._engine is None:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._must_end())
                if self._must_end():
                    return None
                self.is_loading = True
            try:
                self._load()
            except BaseException as error:  # noqa: BLE001 - as in `_run`
                for seq in self._clear_queue():
                    seq.fail(error, "Loading")
            finally:
                self.is_loading = False
        return self._engine

    def _load(self) -> None:
        self.is_importing = True
        try:
            load_engine = _import_engine()
        finally:
            self.is_importing = False
        if self._stopping:
            return
        engine = load_engine(self._model, self._settings)
        name = f"llama-vision {self._model} requests"
        args = (engine.input_processor,)
        thread = threading.Thread(target=self._run_prepare, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
        self._engine = engine

    def _run_prepare(self, input_processor: "InputProcessor") -> None:
        try:
            self._prepare_loop(input_processor)
        except BaseException as error:  # noqa: BLE001 - as in `_run`
            self._set_failure(error)

    def _prepare_loop(self, input_processor: "InputProcessor") -> None:
        """Prepare queued sequences in order of arrival, not many more than fit into a batch."""
        while (seq := self._next_to_prepare()) is not None:
            if seq.cancelled.is_set():
                seq.status = SequenceStatus.FINISHED
            else:
                try:
                    input_processor.process(seq)
                except BaseException as error:  # noqa: BLE001 - it concerns this request only
                    seq.fail(error, "Preparing the request")
            with self._condition:
                self._condition.notify_all()

    def _next_to_prepare(self) -> Sequence | None:
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._can_prepare())
            return None if self._stopping else self._unprepared.popleft()

    def _can_prepare(self) -> bool:
        num_prepared = len(self._waiting) - len(self._unprepared)
        return bool(self._unprepared) and num_prepared < self._settings.max_batch_size

    def _take_prepared(self, engine: "Engine") -> list[Sequence] | None:
        """Dequeue prepared sequences, first come first served; an idle engine waits for one.

        Returns:
            The sequences to add, possibly none. None where the engine is not needed any more.
        """
        limit = min(engine.num_free, _MAX_ADMITTED_PER_STEP) if engine.num_running else engine.num_free
        admitted: list[Sequence] = []
        with self._condition:
            if not engine.num_running:
                self._condition.wait_for(lambda: self._must_end() or self._has_prepared())
            if self._stopping or (self._must_end() and not engine.num_running):
                return None
            while self._has_prepared() and len(admitted) < limit:
                seq = self._waiting.popleft()
                if not (seq.is_finished or seq.cancelled.is_set()):
                    admitted.append(seq)
            self._condition.notify_all()
            return admitted

    def _must_end(self) -> bool:
        return self._stopping or (self._retired and not self._waiting)

    def _has_prepared(self) -> bool:
        return bool(self._waiting) and self._waiting[0].status is not SequenceStatus.QUEUED

    def _set_failure(self, error: BaseException) -> None:
        """Keep why a thread ends as text: a traceback would keep the model in memory."""
        self._failure = self._failure or _ended_message(f"{type(error).__name__}: {error}")
        _logger.error("A thread of the local model has ended", exc_info=error)
        if _is_debugging():
            faulthandler.dump_traceback(sys.__stderr__ or 2)
        self.request_stop()

    def _end(self) -> None:
        """Fail what is left, and free the model."""
        is_shutdown = not (self._failure or self._retired)
        self._failure = self._failure or _SHUTDOWN_MESSAGE
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.abort_all(LocalModelError(self._failure))
        for seq in self._clear_queue():
            seq.fail(LocalModelError(self._failure))
        if engine is not None and not is_shutdown:
            del engine
            for thread in self._threads[1:]:  # which has the model, too
                thread.join(_SHUTDOWN_TIMEOUT_S)
            _free_memory()

    def _clear_queue(self) -> list[Sequence]:
        with self._condition:
            seqs = list(self._waiting)
            self._waiting.clear()
            self._unprepared.clear()
        return seqs


def _without_cancelled(seqs: deque[Sequence]) -> deque[Sequence]:
    return deque(seq for seq in seqs if not seq.cancelled.is_set())


_SHUTDOWN_MESSAGE = "The local model has stopped, because the program is ending."
_FORKED_MESSAGE = (
    "This process was forked while the request was running, which goes on in the parent only. Ask again: that loads the "
    "model in this process."
)
_FORKED_WHILE_LOADING_MESSAGE = (
    "This process was forked while its parent was loading a local model, so it can't load one: fork before the first "
    "call, or after it was answered, or start processes by 'spawn'."
)


def _ended_message(reason: str) -> str:
    return f"A thread of the local model has ended ({reason}), and with it this request. The next call loads the model again."


def _import_engine() -> "Callable[[str, LocalSettings], Engine]":
    """Import torch and all that needs it, and return what loads an engine."""
    # In the engine thread; where torch is not installed, `model_loader` raises the error that says so.
    from llama_vision.backends.local.model_loader import load_model  # noqa: PLC0415, I001 - as said
    from llama_vision.backends.local.engine import Engine  # noqa: PLC0415 - as said

    return lambda model, settings: Engine(load_model(model, settings), settings)


def _free_memory() -> None:
    """Free what an engine leaves: it and its CUDA graphs refer to each other, and torch keeps a GPU's memory."""
    import torch  # noqa: PLC0415 - see `_import_engine`

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _is_debugging() -> bool:
    return os.environ.get("LLAMA_VISION_DEBUG") == "1"


_DEFAULT = LocalSettings()
_threads: dict[tuple[str, LocalSettings], EngineThread] = {}  # in order of last use
_started: WeakSet[EngineThread] = WeakSet()  # those that were retired or replaced, too
_lock = threading.Lock()
_refusal: str | None = None
"""Why this process can't run a model any more."""


def get_engine_thread(model: str, settings: LocalSettings = _DEFAULT) -> EngineThread:
    """Get the engine thread of a model: one in the process for all who use it with equal settings.

    Raises:
        LocalModelError: It can't be started in this process.
    """
    with _lock:
        return _get_engine_thread(model, settings)


def submit(
    model: str, settings: LocalSettings, request: ChatRequest, on_output: Callable[[EngineOutput], None]
) -> tuple[EngineThread, Sequence]:
    """Queue a request at the engine thread of a model; see `EngineThread.submit`."""
    with _lock:  # so that it is not retired in between
        engine_thread = _get_engine_thread(model, settings)
        return engine_thread, engine_thread.submit(request, on_output)


def call_after_step(callback: Callable[[], None]) -> None:
    """Call it once the engine's current step is over, and at once in a thread that runs no engine."""
    if _step.callbacks is None:
        callback()
    else:
        _step.callbacks.append(callback)


@contextlib.contextmanager
def _put_off_calls() -> Generator[None]:
    callbacks = _step.callbacks = list[Callable[[], None]]()
    try:
        yield
    finally:
        _step.callbacks = None
        for callback in callbacks:
            callback()


def unload(settings: LocalSettings) -> None:
    """Free the models that run with these settings, busy ones once all requests are answered. A later call loads again."""
    with _lock:
        retired = [_retire(key) for key in list(_threads) if key[1] == settings]
    for engine_thread in retired:
        if engine_thread.is_idle:
            engine_thread.join()


def _get_engine_thread(model: str, settings: LocalSettings) -> EngineThread:
    if _refusal is not None:
        raise LocalModelError(_refusal)
    if _is_debugging():
        _enable_faulthandler()
    key = model, settings
    if key not in _threads:
        check_model(model)
    engine_thread = _threads.pop(key, None)
    if engine_thread is not None and engine_thread.failure() is not None:
        engine_thread.request_stop()
        engine_thread = None
    _threads[key] = engine_thread = engine_thread or EngineThread(model, settings)
    idle = [other for other, thread in _threads.items() if other != key and thread.is_idle]
    for other in idle[: max(len(idle) - _MAX_IDLE, 0)]:
        _retire(other)
    return engine_thread


def _retire(key: tuple[str, LocalSettings]) -> EngineThread:
    engine_thread = _threads.pop(key)
    engine_thread.retire()
    return engine_thread


def _enable_faulthandler() -> None:
    """Dump all threads at a crash, and on `kill -USR1` where there is that signal."""
    faulthandler.enable(sys.__stderr__ or 2)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, sys.__stderr__ or 2)


# Finalizers that torch makes while it is imported run at exit: after `_stop_all`, where another one was made before.
finalize(EngineThread, str)


@atexit.register
def _stop_all() -> None:
    global _refusal  # noqa: PLW0603 - from here on
    _refusal = _SHUTDOWN_MESSAGE
    engine_threads = list(_started)
    for engine_thread in engine_threads:
        engine_thread.request_stop()
    began = time.monotonic()
    for engine_thread in engine_threads:
        # A thread that comes back from torch to an interpreter that is gone ends the process by std::terminate.
        timeout = _IMPORT_TIMEOUT_S if engine_thread.is_importing else _SHUTDOWN_TIMEOUT_S
        engine_thread.join(max(began + timeout - time.monotonic(), 0))


def _reset_after_fork() -> None:
    """Leave the parent's threads to the parent: a fork does not copy them, but for the locks of what they import."""
    global _lock, _refusal  # noqa: PLW0603 - the lock may have been held by one of those threads
    _lock = threading.Lock()
    if any(thread.is_loading for thread in _started):
        _refusal = _FORKED_WHILE_LOADING_MESSAGE
    _threads.clear()
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

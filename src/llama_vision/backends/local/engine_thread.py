"""Two threads per model: the engine thread loads it and runs its engine, the other one prepares requests meanwhile.

So an event loop is never blocked, a slow consumer delays nobody, and no decode step waits for an image to be decoded.
"""

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.sequence import EngineOutput, Sequence, SequenceStatus
from llama_vision.core.errors import LocalModelError
from llama_vision.core.request import ChatRequest

if TYPE_CHECKING:
    from llama_vision.backends.local.engine import Engine
    from llama_vision.backends.local.input_processor import InputProcessor

_SHUTDOWN_TIMEOUT_S = 5.0
_MAX_ADMITTED_PER_STEP = 4
"""To encode an image takes longer than a decode step, for which the running sequences wait."""

_IDLE_TIMEOUT_S = 10.0
"""After so long without requests, oversized memory is freed."""


class EngineThread:
    """Loads a model with the first request, and serves requests in order of arrival, several at a time."""

    def __init__(self, model: str, settings: LocalSettings) -> None:
        self._model = model
        self._settings = settings
        self._waiting: deque[Sequence] = deque()
        self._unprepared: deque[Sequence] = deque()  # those of them that the preparing thread has not begun
        self._condition = threading.Condition()
        self._stopping = False
        self._engine: Engine | None = None
        self._thread = threading.Thread(target=self._run, name=f"llama-vision {model}", daemon=True)
        self._thread.start()

    def submit(self, request: ChatRequest, on_output: Callable[[EngineOutput], None]) -> Sequence:
        """Queue a request; setting `cancelled` of its sequence removes it. `on_output` must not block.

        Raises:
            LocalModelError: Too many wait already, or the program is ending.
        """
        seq = Sequence(request, on_output)
        with self._condition:
            if self._stopping:
                raise _shutdown_error()
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

    def stop(self) -> None:
        """End the threads, in the middle of replies if need be."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(_SHUTDOWN_TIMEOUT_S)

    def _run(self) -> None:
        while (engine := self._ensure_engine()) is not None and (
            seqs := self._take_prepared(engine)
        ) is not None:
            if not (seqs or engine.num_running):
                engine.trim_memory()
                continue
            try:
                engine.add_sequences(seqs)
                engine.step()
            except Exception as error:  # noqa: BLE001 - whatever it is, consumers wait for it
                engine.abort_all(error)
                for seq in seqs:
                    seq.fail(error)
        if self._engine is not None:
            self._engine.abort_all(_shutdown_error())
        for seq in self._clear_queue():
            seq.fail(_shutdown_error())

    def _ensure_engine(self) -> "Engine | None":
        """Load the model with the first request; None where the program ends first.

        Where loading fails, all waiting requests fail, and the next one loads again.
        """
        while self._engine is None:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return None
            try:
                engine = _load_engine(self._model, self._settings)
            except Exception as error:  # noqa: BLE001 - as in `_run`
                for seq in self._clear_queue():
                    seq.fail(error, "Loading")
                continue
            self._engine = engine
            name = f"llama-vision {self._model} requests"
            args = (engine.input_processor,)
            threading.Thread(target=self._prepare_loop, args=args, name=name, daemon=True).start()
        return self._engine

    def _prepare_loop(self, input_processor: "InputProcessor") -> None:
        """Prepare queued sequences in order of arrival, not many more than fit into a batch."""
        while (seq := self._next_to_prepare()) is not None:
            if seq.cancelled.is_set():
                seq.status = SequenceStatus.FINISHED
            else:
                try:
                    input_processor.process(seq)
                except Exception as error:  # noqa: BLE001 - it concerns this request only
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
        """Dequeue prepared sequences, first come first served; an idle engine waits for one, or for its idle timeout.

        Returns:
            The sequences to add, possibly none. None where the program is ending.
        """
        limit = min(engine.num_free, _MAX_ADMITTED_PER_STEP) if engine.num_running else engine.num_free
        admitted: list[Sequence] = []
        with self._condition:
            if not engine.num_running:
                timeout = _IDLE_TIMEOUT_S if engine.can_trim else None
                self._condition.wait_for(lambda: self._stopping or self._has_prepared(), timeout)
            while self._has_prepared() and len(admitted) < limit:
                seq = self._waiting.popleft()
                if not (seq.is_finished or seq.cancelled.is_set()):
                    admitted.append(seq)
            self._condition.notify_all()
            return None if self._stopping else admitted

    def _has_prepared(self) -> bool:
        return bool(self._waiting) and self._waiting[0].status is not SequenceStatus.QUEUED

    def _clear_queue(self) -> list[Sequence]:
        with self._condition:
            seqs = list(self._waiting)
            self._waiting.clear()
            self._unprepared.clear()
        return seqs


def _without_cancelled(seqs: deque[Sequence]) -> deque[Sequence]:
    return deque(seq for seq in seqs if not seq.cancelled.is_set())


def _shutdown_error() -> LocalModelError:
    return LocalModelError("The local model has stopped, because the program is ending.")


def _load_engine(model: str, settings: LocalSettings) -> "Engine":
    # torch is imported in the engine thread; where it is not installed, `model_loader` raises the error that says so.
    from llama_vision.backends.local.model_loader import load_model  # noqa: PLC0415, I001 - as said
    from llama_vision.backends.local.engine import Engine  # noqa: PLC0415 - as said

    return Engine(load_model(model, settings), settings)


_DEFAULT = LocalSettings()
_threads: dict[tuple[str, LocalSettings], EngineThread] = {}
_lock = threading.Lock()


def get_engine_thread(model: str, settings: LocalSettings = _DEFAULT) -> EngineThread:
    """Get the engine thread of a model: one in the process for all who use it with equal settings."""
    with _lock:
        if (model, settings) not in _threads:
            _threads[model, settings] = EngineThread(model, settings)
        return _threads[model, settings]


@atexit.register
def _stop_all() -> None:
    for thread in _threads.values():
        thread.stop()


def _reset_after_fork() -> None:
    """Leave the parent's threads to the parent: a fork does not copy them."""
    global _lock  # noqa: PLW0603 - it may have been held by one of those threads
    _lock = threading.Lock()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

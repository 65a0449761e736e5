"""Two threads per model: one loads it and drives its engine, the other makes requests ready meanwhile.

Everything heavy happens in them. So an event loop is never blocked, a consumer that is slow, or leaves, does not stand
in the way, and no answer in the making waits for somebody's image to be decoded.
"""

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from llama_vision.backends.local.config import LocalSettings
from llama_vision.core.errors import LlamaVisionError, LocalModelError
from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest

if TYPE_CHECKING:
    from llama_vision.backends.local.engine import Engine
    from llama_vision.backends.local.sequence import Answer

EngineOutput: TypeAlias = Event | LlamaVisionError
"""What a consumer receives: events, the last of them `Finished`, or an error in its place."""

_SHUTDOWN_TIMEOUT_S = 5.0
_MAX_ADMITTED_PER_STEP = 4
"""To look at an image takes longer than a step, and those who are being answered wait meanwhile."""

_IDLE_TIMEOUT_S = 10.0
"""After so long without anything to do, the memory that large requests took is given back."""


@dataclass(slots=True, eq=False)
class Job:
    """One request in the queue.

    Attributes:
        request: What to answer.
        emit: Called in the worker's threads with each outcome.
        cancelled: Set when nobody waits for the answer any more.
        sequence: What the engine takes, once it is ready.
        is_prepared: Whether it has been made ready; without an answer, that failed, and has been told.

    """

    request: ChatRequest
    emit: Callable[[EngineOutput], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    sequence: "Answer | None" = None
    is_prepared: bool = False


class EngineThread:
    """Loads a model with the first job, and takes jobs in the order they come, several at a time."""

    def __init__(self, model: str, settings: LocalSettings) -> None:
        self._model = model
        self._settings = settings
        self._waiting: deque[Job] = deque()
        self._unprepared: deque[Job] = deque()  # those of them that nobody has begun to make ready
        self._condition = threading.Condition()
        self._stopping = False
        self._engine: Engine | None = None
        self._thread = threading.Thread(target=self._run, name=f"llama-vision {model}", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether anyone waits or is being answered."""
        return bool(self._waiting) or (self._engine is not None and self._engine.num_running > 0)

    def submit(self, request: ChatRequest, emit: Callable[[EngineOutput], None]) -> Job:
        """Queue a request.

        Args:
            request: What to answer.
            emit: Called in the worker's threads; it must not block.

        Returns:
            The job; setting `cancelled` takes it out.

        Raises:
            LocalModelError: Too many wait already, or the program is ending.

        """
        job = Job(request, emit)
        with self._condition:
            if self._stopping:
                raise _shutdown_error()
            if len(self._waiting) >= self._settings.max_waiting:
                self._waiting = deque(waiting for waiting in self._waiting if not waiting.cancelled.is_set())
                self._unprepared = deque(
                    waiting for waiting in self._unprepared if not waiting.cancelled.is_set()
                )
            if len(self._waiting) >= self._settings.max_waiting:
                raise LocalModelError(
                    f"{len(self._waiting)} requests wait for the local model already. Ask for less at a time "
                    "(max_concurrency in LangChain), or set LocalSettings(max_waiting=...) higher."
                )
            self._waiting.append(job)
            self._unprepared.append(job)
            self._condition.notify_all()
        return job

    def stop(self) -> None:
        """End the threads, in the middle of answers if need be."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(_SHUTDOWN_TIMEOUT_S)

    def _run(self) -> None:
        while (engine := self._ensure_engine()) is not None and (
            jobs := self._take_prepared(engine)
        ) is not None:
            if not (jobs or engine.num_running):
                engine.trim_memory()
                continue
            answers = [job.sequence for job in jobs if job.sequence is not None]
            try:
                engine.add_sequences(answers)
                engine.step()
            except Exception as error:  # noqa: BLE001 - whatever it is, someone is waiting to hear of it
                failure = to_local_model_error("Generating", error)
                engine.abort_all(failure)
                for answer in answers:
                    answer.fail(failure)
        self._fail_all()

    def _ensure_engine(self) -> "Engine | None":
        """Load the model when the first job comes; where that fails, tell all who wait, and try again for who comes next.

        Returns:
            The engine, or None when it is time to stop.

        """
        while self._engine is None:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return None
            try:
                engine = _engine(self._model, self._settings)
            except Exception as error:  # noqa: BLE001 - as in `_run`
                with self._condition:
                    jobs = list(self._waiting)
                    self._waiting.clear()
                    self._unprepared.clear()
                for job in jobs:
                    job.emit(to_local_model_error("Loading", error))
                continue
            self._engine = engine
            name = f"llama-vision {self._model} requests"
            threading.Thread(target=self._prepare_loop, args=(engine,), name=name, daemon=True).start()
        return self._engine

    def _prepare_loop(self, engine: "Engine") -> None:
        """Make those ready that wait, in the order they came, and not many more than the engine can take at a time."""
        while (job := self._next_to_prepare()) is not None:
            answer = None if job.cancelled.is_set() else _prepare(job, engine)
            with self._condition:
                job.sequence, job.is_prepared = answer, True
                self._condition.notify_all()

    def _next_to_prepare(self) -> Job | None:
        most = self._settings.max_batch_size
        with self._condition:
            self._condition.wait_for(
                lambda: (
                    self._stopping or (self._unprepared and len(self._waiting) - len(self._unprepared) < most)
                )
            )
            return None if self._stopping else self._unprepared.popleft()

    def _take_prepared(self, engine: "Engine") -> list[Job] | None:
        """Take jobs off the queue that are ready, those that came first; without anything to do, wait for one.

        Returns:
            What to begin with: nothing, where only answers in the making are to go on, or where there has been nothing to
            do for a while. None when it is time to stop.

        """
        room = min(engine.num_free, _MAX_ADMITTED_PER_STEP) if engine.num_running else engine.num_free
        taken: list[Job] = []
        with self._condition:
            if not engine.num_running:
                self._condition.wait_for(
                    lambda: self._stopping or self._has_ready(), _IDLE_TIMEOUT_S if engine.can_trim else None
                )
            while self._has_ready() and len(taken) < room:
                job = self._waiting.popleft()
                if job.sequence is not None and not job.cancelled.is_set():
                    taken.append(job)
            self._condition.notify_all()
            return None if self._stopping else taken

    def _has_ready(self) -> bool:
        return bool(self._waiting) and self._waiting[0].is_prepared

    def _fail_all(self) -> None:
        """Tell everyone that nothing more comes."""
        if self._engine is not None:
            self._engine.abort_all(_shutdown_error())
        with self._condition:
            for job in self._waiting:
                job.emit(_shutdown_error())
            self._waiting.clear()
            self._unprepared.clear()


def _shutdown_error() -> LocalModelError:
    return LocalModelError("The local model has stopped, because the program is ending.")


def _engine(model: str, settings: LocalSettings) -> "Engine":
    # torch loads in the worker's thread; where it is not installed, the first import says so.
    from llama_vision.backends.local.model_loader import load_model  # noqa: PLC0415 - as said

    loaded = load_model(model, settings)
    from llama_vision.backends.local.engine import Engine  # noqa: PLC0415 - as said

    return Engine(loaded, settings)


def _prepare(job: Job, engine: "Engine") -> "Answer | None":
    """Get ready to answer, or tell why that can't be."""
    try:
        return engine.answer_to(job.request, job.emit, job.cancelled.is_set)
    except Exception as error:  # noqa: BLE001 - it concerns this job only
        job.emit(to_local_model_error("Preparing the request", error))
        return None


def to_local_model_error(work: str, error: Exception) -> LlamaVisionError:
    """Turn what was raised into an error of ours that says during which work."""
    if isinstance(error, LlamaVisionError):
        return error
    failure = LocalModelError(f"{work} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


_DEFAULT = LocalSettings()
_workers: dict[tuple[str, LocalSettings], EngineThread] = {}
_lock = threading.Lock()


def get_engine_thread(model: str, settings: LocalSettings = _DEFAULT) -> EngineThread:
    """Get the worker of a model: one for the whole process, however many objects use the model with equal settings."""
    with _lock:
        if (model, settings) not in _workers:
            _workers[model, settings] = EngineThread(model, settings)
        return _workers[model, settings]


@atexit.register
def _stop_all() -> None:
    for worker in _workers.values():
        worker.stop()


def _reset_after_fork() -> None:
    """Leave the parent's threads to the parent: a fork does not copy them."""
    global _lock  # noqa: PLW0603 - it may have been held by one of those threads
    _lock = threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

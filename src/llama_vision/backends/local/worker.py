"""Two threads per model: one loads it and drives its engine, the other makes requests ready meanwhile.

Everything heavy happens in them. So an event loop is never blocked, a consumer that is slow, or leaves, does not stand
in the way, and no answer in the making waits for somebody's picture to be decoded.
"""

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from llama_vision.backends.local.settings import LocalSettings
from llama_vision.core.errors import LlamaVisionError, LocalModelError
from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest

if TYPE_CHECKING:
    from llama_vision.backends.local.answer import Answer
    from llama_vision.backends.local.engine import Engine

Outcome: TypeAlias = Event | LlamaVisionError
"""What a consumer receives: events, the last of them `Finished`, or an error in its place."""

_PATIENCE_AT_EXIT_S = 5.0
_NEW_AT_A_STEP = 4
"""To look at a picture takes longer than a step, and those who are being answered wait meanwhile."""

_IDLE_S = 10.0
"""After so long without anything to do, the memory that large requests took is given back."""


@dataclass(slots=True, eq=False)
class Job:
    """One request in the queue.

    Attributes:
        request: What to answer.
        emit: Called in the worker's threads with each outcome.
        left: Set when nobody waits for the answer any more.
        answer: What the engine takes, once it is ready.
        ready: Whether it has been made ready; without an answer, that failed, and has been told.

    """

    request: ChatRequest
    emit: Callable[[Outcome], None]
    left: threading.Event = field(default_factory=threading.Event)
    answer: "Answer | None" = None
    ready: bool = False


class Worker:
    """Loads a model with the first job, and takes jobs in the order they come, several at a time."""

    def __init__(self, model: str, settings: LocalSettings) -> None:
        self._model = model
        self._settings = settings
        self._waiting: deque[Job] = deque()
        self._unready: deque[Job] = deque()  # those of them that nobody has begun to make ready
        self._news = threading.Condition()
        self._stopping = False
        self._engine: Engine | None = None
        self._thread = threading.Thread(target=self._run, name=f"llama-vision {model}", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether anyone waits or is being answered."""
        return bool(self._waiting) or (self._engine is not None and self._engine.working > 0)

    def submit(self, request: ChatRequest, emit: Callable[[Outcome], None]) -> Job:
        """Queue a request.

        Args:
            request: What to answer.
            emit: Called in the worker's threads; it must not block.

        Returns:
            The job; setting `left` takes it out.

        Raises:
            LocalModelError: Too many wait already, or the program is ending.

        """
        job = Job(request, emit)
        with self._news:
            if self._stopping:
                raise _stopped()
            if len(self._waiting) >= self._settings.max_waiting:
                self._waiting = deque(waiting for waiting in self._waiting if not waiting.left.is_set())
                self._unready = deque(waiting for waiting in self._unready if not waiting.left.is_set())
            if len(self._waiting) >= self._settings.max_waiting:
                raise LocalModelError(
                    f"{len(self._waiting)} requests wait for the local model already. Ask for less at a time "
                    "(max_concurrency in LangChain), or set LocalSettings(max_waiting=...) higher."
                )
            self._waiting.append(job)
            self._unready.append(job)
            self._news.notify_all()
        return job

    def stop(self) -> None:
        """End the threads, in the middle of answers if need be."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        self._thread.join(_PATIENCE_AT_EXIT_S)

    def _run(self) -> None:
        while (engine := self._loaded()) is not None and (jobs := self._next(engine)) is not None:
            if not (jobs or engine.working):
                engine.rest()
                continue
            answers = [job.answer for job in jobs if job.answer is not None]
            try:
                engine.admit(answers)
                engine.step()
            except Exception as error:  # noqa: BLE001 - whatever it is, someone is waiting to hear of it
                failure = _failure("Generating", error)
                engine.fail(failure)
                for answer in answers:
                    answer.fail(failure)
        self._give_up()

    def _loaded(self) -> "Engine | None":
        """Load the model when the first job comes; where that fails, tell all who wait, and try again for who comes next.

        Returns:
            The engine, or None when it is time to stop.

        """
        while self._engine is None:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return None
            try:
                engine = _engine(self._model, self._settings)
            except Exception as error:  # noqa: BLE001 - as in `_run`
                with self._news:
                    jobs = list(self._waiting)
                    self._waiting.clear()
                    self._unready.clear()
                for job in jobs:
                    job.emit(_failure("Loading", error))
                continue
            self._engine = engine
            name = f"llama-vision {self._model} requests"
            threading.Thread(target=self._make_ready, args=(engine,), name=name, daemon=True).start()
        return self._engine

    def _make_ready(self, engine: "Engine") -> None:
        """Make those ready that wait, in the order they came, and not many more than the engine can take at a time."""
        while (job := self._next_unready()) is not None:
            answer = None if job.left.is_set() else _prepared(job, engine)
            with self._news:
                job.answer, job.ready = answer, True
                self._news.notify_all()

    def _next_unready(self) -> Job | None:
        most = self._settings.max_batch_size
        with self._news:
            self._news.wait_for(
                lambda: self._stopping or (self._unready and len(self._waiting) - len(self._unready) < most)
            )
            return None if self._stopping else self._unready.popleft()

    def _next(self, engine: "Engine") -> list[Job] | None:
        """Take jobs off the queue that are ready, those that came first; without anything to do, wait for one.

        Returns:
            What to begin with: nothing, where only answers in the making are to go on, or where there has been nothing to
            do for a while. None when it is time to stop.

        """
        room = min(engine.free, _NEW_AT_A_STEP) if engine.working else engine.free
        taken: list[Job] = []
        with self._news:
            if not engine.working:
                self._news.wait_for(
                    lambda: self._stopping or self._has_ready(), _IDLE_S if engine.large else None
                )
            while self._has_ready() and len(taken) < room:
                job = self._waiting.popleft()
                if job.answer is not None and not job.left.is_set():
                    taken.append(job)
            self._news.notify_all()
            return None if self._stopping else taken

    def _has_ready(self) -> bool:
        return bool(self._waiting) and self._waiting[0].ready

    def _give_up(self) -> None:
        """Tell everyone that nothing more comes."""
        if self._engine is not None:
            self._engine.fail(_stopped())
        with self._news:
            for job in self._waiting:
                job.emit(_stopped())
            self._waiting.clear()
            self._unready.clear()


def _stopped() -> LocalModelError:
    return LocalModelError("The local model has stopped, because the program is ending.")


def _engine(model: str, settings: LocalSettings) -> "Engine":
    # torch loads in the worker's thread; where it is not installed, the first import says so.
    from llama_vision.backends.local.loading import load  # noqa: PLC0415 - as said

    loaded = load(model, settings)
    from llama_vision.backends.local.engine import Engine  # noqa: PLC0415 - as said

    return Engine(loaded, settings)


def _prepared(job: Job, engine: "Engine") -> "Answer | None":
    """Get ready to answer, or tell why that can't be."""
    try:
        return engine.answer_to(job.request, job.emit, job.left.is_set)
    except Exception as error:  # noqa: BLE001 - it concerns this job only
        job.emit(_failure("Preparing the request", error))
        return None


def _failure(work: str, error: Exception) -> LlamaVisionError:
    if isinstance(error, LlamaVisionError):
        return error
    failure = LocalModelError(f"{work} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


_DEFAULT = LocalSettings()
_workers: dict[tuple[str, LocalSettings], Worker] = {}
_lock = threading.Lock()


def worker_for(model: str, settings: LocalSettings = _DEFAULT) -> Worker:
    """Get the worker of a model: one for the whole process, however many objects use the model with equal settings."""
    with _lock:
        if (model, settings) not in _workers:
            _workers[model, settings] = Worker(model, settings)
        return _workers[model, settings]


@atexit.register
def _stop_all() -> None:
    for worker in _workers.values():
        worker.stop()


def _forget() -> None:
    """Leave the parent's threads to the parent: a fork does not copy them."""
    global _lock  # noqa: PLW0603 - it may have been held by one of those threads
    _lock = threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

"""One thread per model, which answers one request after the other.

Everything heavy happens in it: loading, preparing pictures, generating. So an event loop is never blocked, and a
consumer that is slow, or leaves, does not stand in the way.
"""

import atexit
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from llama_vision.core.errors import LlamaVisionError, LocalModelError
from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest

if TYPE_CHECKING:
    from llama_vision.backends.local.loading import LoadedModel

Outcome: TypeAlias = Event | LlamaVisionError
"""What a consumer receives: events, the last of them `Finished`, or an error in its place."""

_PATIENCE_AT_EXIT_S = 5.0


@dataclass(slots=True)
class Job:
    """One request in the queue.

    Attributes:
        request: What to answer.
        emit: Called in the worker's thread with each outcome.
        left: Set when nobody waits for the answer any more.

    """

    request: ChatRequest
    emit: Callable[[Outcome], None]
    left: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Loads a model with the first job, and answers jobs in the order they come."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._current: Job | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"llama-vision {model}", daemon=True)
        self._thread.start()

    def submit(self, request: ChatRequest, emit: Callable[[Outcome], None]) -> Job:
        """Queue a request.

        Args:
            request: What to answer.
            emit: Called in the worker's thread; it must not block.

        Returns:
            The job; setting `left` takes it out.

        """
        job = Job(request, emit)
        self._jobs.put(job)
        return job

    def stop(self) -> None:
        """End the thread, in the middle of an answer if need be."""
        self._stopping = True
        if (current := self._current) is not None:
            current.left.set()
        self._jobs.put(None)
        self._thread.join(_PATIENCE_AT_EXIT_S)

    def _run(self) -> None:
        loaded: LoadedModel | None = None
        while (job := self._jobs.get()) is not None and not self._stopping:
            if job.left.is_set():
                continue
            self._current = job
            try:
                # torch loads in this thread; where it is not installed, this import says so.
                from llama_vision.backends.local.loading import load  # noqa: PLC0415 - as said

                loaded = loaded or load(self._model)
                _answer(loaded, job)
            except LlamaVisionError as error:
                job.emit(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, someone is waiting to hear of it
                failure = LocalModelError(f"Generating failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                job.emit(failure)
            self._current = None


def _answer(loaded: "LoadedModel", job: Job) -> None:
    from llama_vision.backends.local.generation import generate  # noqa: PLC0415 - after `loading`, which knows of torch

    generate(loaded, job.request, job.emit, job.left.is_set)


_workers: dict[str, Worker] = {}
_lock = threading.Lock()


def worker_for(model: str) -> Worker:
    """Get the worker of a model: one for the whole process, however many objects use the model."""
    with _lock:
        if model not in _workers:
            _workers[model] = Worker(model)
        return _workers[model]


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

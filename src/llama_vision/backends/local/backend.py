"""The local backend: the model on this machine, behind the protocol of every backend."""

import asyncio
import contextlib
import math
import queue
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Generator

from llama_vision.adaptation.images import locate
from llama_vision.adaptation.pipeline import AdaptedRequest, aadapt_request, adapt_request
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine_thread import (
    EngineOutput,
    EngineThread,
    call_after_step,
    submit,
    unload,
)
from llama_vision.core.backend import AttachErrorContext
from llama_vision.core.errors import ImageError, LlamaVisionError, RequestTimeoutError
from llama_vision.core.events import Event, Finished
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.provider import Provider
from llama_vision.toolcalls.event_filter import TextToolCallExtractor

_CHECK_INTERVAL_S = 0.5
"""How often who waits for an output looks whether the threads that send it are still there."""


class LocalBackend:
    """Llama 3.2 Vision on this machine. Requests to one model are batched continuously."""

    def __init__(
        self,
        provider: Provider,
        images: ImageSettings | None = None,
        local: LocalSettings | None = None,
        *,
        deadline: float | None = None,
    ) -> None:
        self._provider = provider
        self._images = images or ImageSettings()
        self._local = local or LocalSettings()
        self._deadline = deadline  # seconds of a call

    def __repr__(self) -> str:
        return f"LocalBackend({self._provider.name!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        return Reply.from_events(self.stream(request))

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        builder = ReplyBuilder()
        # What is raised here is raised inside of the stream, which needs no closing then.
        async for event in self.astream(request):
            builder.add(event)
        return builder.reply()

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer token by token; see `Backend.stream`."""
        expires = _expiry(self._deadline)
        with AttachErrorContext(self._provider.name, request.model):
            adapted = adapt_request(self._provider, request, self._images)
            outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
            engine_thread, job = submit(request.model, self._local, adapted.request, outputs.put)
            try:
                calls = TextToolCallExtractor(adapted.text_parsed_tools)
                event = None
                while not isinstance(event, Finished):
                    event = _event_or_raise(_get(outputs, engine_thread, expires), adapted)
                    yield from calls.process([event])
            finally:
                job.cancelled.set()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer token by token, without blocking the event loop; see `Backend.astream`."""
        expires = _expiry(self._deadline)
        with AttachErrorContext(self._provider.name, request.model):
            adapted = await aadapt_request(self._provider, request, self._images)
            loop = asyncio.get_running_loop()
            outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
            # No asyncio.Queue, which raises where its loop was closed in the middle.
            has_arrived = asyncio.Event()
            waker = _waker_of(loop)

            def emit(output: EngineOutput) -> None:
                outputs.put(output)
                waker.set_soon(has_arrived)

            engine_thread, job = submit(request.model, self._local, adapted.request, emit)
            try:
                calls = TextToolCallExtractor(adapted.text_parsed_tools)
                event = None
                with waker.set_regularly(has_arrived, expires):
                    while not isinstance(event, Finished):
                        output = await _aget(outputs, has_arrived, engine_thread, expires)
                        event = _event_or_raise(output, adapted)
                        for parsed in calls.process([event]):
                            yield parsed
            finally:
                job.cancelled.set()

    def close(self) -> None:
        """Free the models that run with these settings, which the whole process shares; a later call loads them again."""
        unload(self._local)

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)


class _Waker:
    """Sets events of one event loop, all that are due after a decode step at once: it has an output for each sequence.

    To wake the loop is a system call, at which the engine's thread loses the interpreter lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._due: deque[asyncio.Event] = deque()
        self._is_scheduled = False

    def set_soon(self, event: asyncio.Event) -> None:
        """Set an event from any thread."""
        self._due.append(event)
        if not self._is_scheduled:
            self._is_scheduled = True
            call_after_step(self._wake)

    @contextlib.contextmanager
    def set_regularly(self, event: asyncio.Event, expires: float) -> Generator[None]:
        """Let who waits for an event of the running loop look around from time to time, and when the call's time is up.

        One timer for the whole call: one for each output would cost more than the output.
        """
        loop = asyncio.get_running_loop()

        def set_now() -> None:
            nonlocal timer
            event.set()
            self._set_due()  # should a thread have ended in between
            left = expires - time.monotonic()
            timer = loop.call_later(left if 0 < left < _CHECK_INTERVAL_S else _CHECK_INTERVAL_S, set_now)

        timer = loop.call_soon(set_now)
        try:
            yield
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if (loop := self._loop()) is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits
                loop.call_soon_threadsafe(self._set_due)

    def _set_due(self) -> None:
        self._is_scheduled = False  # before looking: what comes from now on is scheduled anew
        while self._due:
            self._due.popleft().set()


_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waker] = weakref.WeakKeyDictionary()


def _waker_of(loop: asyncio.AbstractEventLoop) -> _Waker:
    if (waker := _wakers.get(loop)) is None:
        waker = _wakers[loop] = _Waker(loop)
    return waker


def _get(
    outputs: "queue.SimpleQueue[EngineOutput]", engine_thread: EngineThread, expires: float
) -> EngineOutput:
    """Wait for the next output, for as long as there are threads that could send one, and the call has time."""
    while (failure := engine_thread.failure()) is None:
        with contextlib.suppress(queue.Empty):
            return outputs.get(timeout=_pause(expires))
    return failure if outputs.empty() else outputs.get()


async def _aget(
    outputs: "queue.SimpleQueue[EngineOutput]",
    has_arrived: asyncio.Event,
    engine_thread: EngineThread,
    expires: float,
) -> EngineOutput:
    """As `_get`, without blocking the event loop; `has_arrived` is set from time to time without an output, too."""
    while outputs.empty():
        _pause(expires)
        has_arrived.clear()
        await has_arrived.wait()
        if outputs.empty() and (failure := engine_thread.failure()) is not None and outputs.empty():
            return failure
    return outputs.get()


def _expiry(deadline: float | None) -> float:
    return math.inf if deadline is None else time.monotonic() + deadline


def _pause(expires: float) -> float:
    """Return how long to wait before looking again, or raise RequestTimeoutError once the call's time is up."""
    if (left := expires - time.monotonic()) <= 0:
        raise RequestTimeoutError("The call's deadline=... has passed.")
    return min(left, _CHECK_INTERVAL_S)


def _event_or_raise(output: EngineOutput, adapted: AdaptedRequest) -> Event:
    if isinstance(output, ImageError):
        locate(output, adapted.image_locations)
    if isinstance(output, LlamaVisionError):
        raise output
    return output

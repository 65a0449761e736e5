"""Keeps a second cancellation from interrupting the clean-up that the first one began.

httpcore closes a connection in a few steps, shielded from AnyIO's cancellation but not from `Task.cancel`. A cancel scope
of AnyIO (Starlette's streaming responses have one) cancels the awaiting task at every step of the event loop until it
ends, and tasks that it awaits with it: the connection would stay open, and active in its pool, for good.

The clean-up runs in the same task: a task of its own costs a step of the event loop, in which aiohttp discards what it
has received if the server hangs up.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from functools import partial
from types import TracebackType, coroutine
from typing import Any, TypeVar

import httpx

_T = TypeVar("_T")

_CLEAN_UP_TIMEOUT_S = 1.0
"""A cancellation after that is let through: a transport whose clean-up hangs must not make the task uncancellable."""


@coroutine
def cancel_once(awaitable: Awaitable[_T]) -> Generator[Any, Any, _T]:
    """Await in the same task, and let one cancellation through until the awaitable has ended.

    Raises:
        asyncio.CancelledError: There was a cancellation that was not let through.
    """
    steps = awaitable.__await__()
    send = steps.send
    waited: asyncio.Future[Any] | None = None
    suspended = False
    try:
        while True:  # as `yield from`, at little more than its cost: this runs for each chunk
            waited = send(None)
            suspended = True
            yield waited
            suspended = False
    except StopIteration as end:
        return end.value
    except BaseException as error:
        if not suspended:
            raise
        step = partial(steps.throw, error)
        cancelled = isinstance(error, asyncio.CancelledError)
        cancellations = _Cancellations(earlier=1 if cancelled else 0)
        if cancelled:
            cancellations.let_through(waited)
    return (yield from _take_steps(steps, step, cancellations))


@coroutine
def shield(awaitable: Awaitable[_T]) -> Generator[Any, Any, _T]:
    """As `cancel_once`, and let no cancellation through."""
    steps = awaitable.__await__()
    return (yield from _take_steps(steps, partial(steps.send, None), _Cancellations(shielded=True)))


def _take_steps(
    steps: Generator[Any, Any, _T], step: Callable[[], Any], cancellations: "_Cancellations"
) -> Generator[Any, Any, _T]:
    """Take the steps of an awaitable to the end, beginning with `step`."""
    try:
        while True:
            waited: asyncio.Future[Any] | None = step()  # None only lets others run
            step = partial(steps.send, None)
            try:
                yield from cancellations.wait(waited)
            except asyncio.CancelledError as error:
                cancellations.let_through(waited)
                step = partial(steps.throw, error)
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                step = partial(steps.throw, error)
    except StopIteration as end:
        cancellations.raise_held()
        return end.value
    except Exception:
        cancellations.raise_held()
        raise


class _Cancellations:
    """The cancellations of the current task while it awaits something.

    Scopes inside it may cancel this task too, as AnyIO's do to connect: they take it back by `Task.uncancel`.
    """

    __slots__ = ("_before", "_deadline", "_held", "_pending", "_shielded", "_task")

    def __init__(self, *, earlier: int = 0, shielded: bool = False) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._pending = task.cancelling()
        self._before = self._pending - earlier
        self._held: asyncio.CancelledError | None = None
        self._deadline = time.monotonic() + _CLEAN_UP_TIMEOUT_S
        self._shielded = shielded

    def let_through(self, waited: "asyncio.Future[Any] | None") -> None:
        """Shield what follows a cancellation."""
        if waited is not None:
            waited.cancel()
        self._shielded, self._held, self._pending = True, None, self._task.cancelling()
        self._deadline = time.monotonic() + _CLEAN_UP_TIMEOUT_S

    def wait(self, waited: "asyncio.Future[Any] | None") -> Generator[Any, Any, None]:
        """Wait for a future and hold cancellations back."""
        if self._task.cancelling() < self._pending:  # taken back by a scope inside: this is no clean-up
            self._pending, self._shielded = self._task.cancelling(), False
            self.raise_held()
        if not self._shielded:
            yield waited
            return
        while True:
            try:
                yield from (asyncio.sleep(0) if waited is None else asyncio.wait([waited])).__await__()
            except asyncio.CancelledError as error:
                self._held, self._pending = error, self._task.cancelling()
                if waited is not None and time.monotonic() > self._deadline:
                    waited.cancel()
            if waited is None or waited.done():
                return

    def raise_held(self) -> None:
        """Raise what was held back, unless it was taken back."""
        if self._held is not None and self._task.cancelling() > self._before:
            raise self._held


class CancelOnce(AsyncIterator[_T]):
    """Iterates with `cancel_once`. Not an async generator: see `AsyncClientLease`."""

    __slots__ = ("_items",)

    def __init__(self, items: AsyncIterator[_T]) -> None:
        self._items = items

    def __anext__(self) -> Awaitable[_T]:
        return cancel_once(self._items.__anext__())


class Closing:
    """Closes a response at the end of a block, as `contextlib.aclosing`, in spite of cancellations."""

    __slots__ = ("_response",)

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __aenter__(self) -> httpx.Response:
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await shield(self._response.aclose())

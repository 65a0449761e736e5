"""Runs asynchronous work from synchronous code, also where an event loop is running already."""

import asyncio
import contextlib
import contextvars
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run_async(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end, in another thread where this one's event loop is running, as in a notebook.

    Args:
        work: The coroutine.

    Returns:
        Its result.
    """
    return _run_in_thread(work) if _is_loop_running() else asyncio.run(work)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(work: Coroutine[Any, Any, _Result]) -> _Result:
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def main() -> _Result:
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1, "captions") as executor:
        done = executor.submit(contextvars.copy_context().run, asyncio.run, main())
        try:
            return done.result()
        except KeyboardInterrupt:  # delivered only to the main thread: cancel the work
            loop, task = started.result()
            if task is not None:
                with contextlib.suppress(RuntimeError):  # it has just ended, and its loop is closed
                    loop.call_soon_threadsafe(task.cancel)
            raise

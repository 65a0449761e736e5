"""Awaiting with `cancel_once`: the first cancellation gets through, and its clean-up runs to the end."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import anyio
import pytest

from llama_vision.backends.http.cancellation import cancel_once, shield


async def cleaning_up(log: list[str], seconds: float = 0.05) -> None:
    try:
        await asyncio.sleep(10)
    finally:
        await asyncio.sleep(0)
        await asyncio.sleep(seconds)
        log.append("clean")


async def cancelled(awaiting: Coroutine[Any, Any, Any], *after: float) -> bool:
    """Cancel a task once after each of the seconds; whether that ended it."""
    task = asyncio.create_task(awaiting)
    for seconds in after:
        await asyncio.sleep(seconds)
        task.cancel()
    await asyncio.wait([task], timeout=0.5)
    return task.cancelled()


async def awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await cancel_once(coroutine)


async def awaited_shielded(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await shield(coroutine)


@pytest.mark.parametrize("after", [(0.01,), (0.01, 0.0), (0.01, 0.01), (0.01,) + (0.0,) * 50])
async def test_a_clean_up_runs_to_the_end(after: tuple[float, ...]):
    log: list[str] = []
    assert await cancelled(awaited(cleaning_up(log)), *after)
    assert log == ["clean"]


async def test_two_cancellations_at_once_are_one():
    log: list[str] = []
    task = asyncio.create_task(awaited(cleaning_up(log)))
    await asyncio.sleep(0.01)
    task.cancel()
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()
    assert log == ["clean"]


async def test_what_is_shielded_ends_before_the_cancellation_is_raised():
    log: list[str] = []

    async def close() -> None:
        await asyncio.sleep(0.05)
        log.append("closed")

    assert await cancelled(awaited_shielded(close()), 0.01, 0.0, 0.0)
    assert log == ["closed"]


async def test_results_and_errors_pass():
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, failed.set_exception, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await cancel_once(failed)
    assert await cancel_once(asyncio.sleep(0.01, "result")) == "result"
    assert await shield(asyncio.sleep(0, "result")) == "result"


async def test_an_error_of_the_clean_up_does_not_hide_a_second_cancellation():
    async def fail() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.05)
            raise ZeroDivisionError

    task = asyncio.create_task(awaited(fail()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(ZeroDivisionError):
        await task
    assert await cancelled(awaited(fail()), 0.01, 0.01)


async def test_a_timeout_inside_is_no_cancellation():
    async def connect() -> str:
        with anyio.move_on_after(0.01):
            await asyncio.sleep(10)
        await asyncio.sleep(10)
        return "never"

    began = time.monotonic()
    assert await cancelled(awaited(connect()), 0.05)
    assert time.monotonic() - began < 1


async def test_a_scope_inside_that_cancels_again_and_again_is_no_cancellation():
    async def connect() -> str:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(cleaning_up, [], 0.01)
            await asyncio.sleep(0.01)
            group.cancel_scope.cancel()
        await asyncio.sleep(0.01)
        return "connected"

    assert await cancel_once(connect()) == "connected"
    assert asyncio.current_task().cancelling() == 0


async def test_a_cancellation_during_a_timeout_inside_gets_through_after_it():
    async def connect() -> None:
        with anyio.move_on_after(0.01):
            try:
                await asyncio.sleep(10)
            finally:
                await asyncio.sleep(0.05)
        await asyncio.sleep(10)

    assert await cancelled(awaited(connect()), 0.03)


async def test_a_timeout_outside_is_a_timeout():
    log: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cancel_once(cleaning_up(log))
    assert log == ["clean"]
    assert asyncio.current_task().cancelling() == 0


async def test_a_clean_up_that_hangs_can_be_cancelled_after_a_second():
    log: list[str] = []
    assert not await cancelled(awaited(cleaning_up(log, 10)), 0.01, 0.01)
    assert await cancelled(awaited(cleaning_up(log, 10)), 0.01, 1.1)
    assert log == []

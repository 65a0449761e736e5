"""Drains a response after the end of its event stream, so that its connection can be reused.

A connection whose response was not read to the end has to be closed, at the cost of a handshake for the next call. A
server that keeps the response open after `[DONE]` is not waited for.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass

import httpx

_DRAIN_TIMEOUT_S = 1.0
_TICK_S = 0.25
_IDLE_TIMEOUT_S = 5.0


@dataclass(slots=True, eq=False)
class _Drain:
    """A response that is being drained; `response` is None once it was."""

    response: httpx.Response | None
    deadline: float


class _Watchdog:
    """Shuts down the sockets of drains that outlast their time, in one thread for all of them.

    A timer per stream would start a thread per stream, a fifth of what a short stream costs. Drains end within the
    timeout and a tick; the thread ends when there was nothing to watch for a while.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drains: deque[_Drain] = deque()  # in the order of their deadlines
        self._running = False

    @contextlib.contextmanager
    def watch(self, response: httpx.Response) -> Generator[None]:
        """Shut the response's socket down if the block takes longer than the timeout."""
        drain = _Drain(response, time.monotonic() + _DRAIN_TIMEOUT_S)
        with self._lock:
            self._drains.append(drain)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="llama-vision drain", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:  # from here on the socket belongs to the next call
                drain.response = None

    def _run(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(_TICK_S)
            now = time.monotonic()
            with self._lock:
                while self._drains and (self._drains[0].response is None or self._drains[0].deadline <= now):
                    idle_since = now
                    if (response := self._drains.popleft().response) is not None:
                        _shutdown_socket(response)
                if not self._drains and now - idle_since > _IDLE_TIMEOUT_S:
                    self._running = False
                    return


_watchdog = _Watchdog()


def drain(chunks: Iterator[bytes], response: httpx.Response) -> None:
    """Read the rest of a response, for little more than a second at most."""
    # The reply is complete: a failure now only concerns the connection.
    with _watchdog.watch(response), contextlib.suppress(httpx.HTTPError, OSError, ValueError):
        for _ in chunks:
            pass


async def adrain(chunks: AsyncIterator[bytes]) -> None:
    """Read the rest of a response, for a second at most."""
    with contextlib.suppress(httpx.HTTPError, OSError, TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            async for _ in chunks:
                pass


def _shutdown_socket(response: httpx.Response) -> None:
    """Unblock a read in another thread, which closing the socket would not."""
    stream = response.extensions.get("network_stream")
    if stream is not None and (connection := stream.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _reset_after_fork() -> None:
    """Start anew in a forked process, which has no threads."""
    global _watchdog  # noqa: PLW0603 - the parent's lock may have been held
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

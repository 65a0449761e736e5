"""Ends calls over a client of the user's own when their time is up, in one thread for all of them.

The connections of our own pools keep the time themselves (`network.py`), and a task can be cancelled. A thread that waits
in another client's read can only be woken by shutting the socket down.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Generator
from typing import Any, Protocol, cast

from llama_vision.backends.http.exchange import Exchange
from llama_vision.core.errors import ConnectionFailedError

_TICK_S = 0.1
_IDLE_TIMEOUT_S = 5.0


class HasExchange(Protocol):
    """A call; each of its attempts is another exchange."""

    exchange: Exchange


class _Watchdog:
    """The thread begins with a call, and ends when there was none for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, HasExchange] = {}
        self._running = False

    @contextlib.contextmanager
    def watch(self, call: HasExchange) -> Generator[None]:
        """Shut the connection of the call's exchange down once its time is up."""
        with self._lock:
            if not self._running:
                self._start()
            self._calls[id(call)] = call
        try:
            yield
        finally:
            with self._lock:  # from here on the socket belongs to the next call
                del self._calls[id(call)]

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="llama-vision watchdog", daemon=True).start()
        except RuntimeError as error:
            raise ConnectionFailedError(f"The call can't be watched over: {error}.") from error
        self._running = True

    def _run(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(_TICK_S)
            with self._lock:
                for call in self._calls.values():
                    if call.exchange.expired:
                        _shut_down(call.exchange)
                if self._calls:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > _IDLE_TIMEOUT_S:
                    self._running = False
                    return


_watchdog = _Watchdog()


def watch(call: HasExchange) -> contextlib.AbstractContextManager[None]:
    """Shut the connection of a call down when its time is up, as far as it is known."""
    return _watchdog.watch(call)


def _shut_down(exchange: Exchange) -> None:
    """Unblock a read in another thread, which closing the socket would not."""
    stream, exchange.stream = cast("Any", exchange.stream), None
    if stream is not None and (connection := stream.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _reset_after_fork() -> None:
    """Start anew in a forked process, which has no threads."""
    global _watchdog  # noqa: PLW0603 - the parent's lock may have been held
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

"""One attempt of a call, a request and its response: until when it may last, and how far it came.

httpx's timeouts are for each read and write: a server that sends a byte now and then keeps a call for ever. httpcore hands
the timeouts of a request to every read and write of its connection. Those of our pools carry the exchange with them, and
become shorter as its end comes near (`network.py`). To any other transport they are numbers.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Any

import httpx

_DRAIN_TIMEOUT_S = 1.0


class ExchangeTimeout(float):
    """Seconds that one operation of an exchange may wait; infinite for no limit."""

    __slots__ = ("exchange",)

    exchange: "Exchange"


class Exchange:
    """One request and its response.

    Attributes:
        expires: When it has to end, on the monotonic clock; infinite for never.
        on_new_connection: Whether it may go out on a new connection only.
        timer: What cancels the task at the end, where the connection does not keep the time.
        reused: Whether its connection carried another exchange before.
        answered: Whether a byte of the response arrived.
        stream: The connection, where it is watched over (`watchdog.py`).
    """

    __slots__ = (
        "_deadline",
        "_limit",
        "answered",
        "expires",
        "on_new_connection",
        "reused",
        "stream",
        "timer",
    )

    def __init__(
        self, limit: float, deadline: float, *, on_new_connection: bool = False, waits_for_pool: bool = False
    ) -> None:
        """Begin an exchange.

        Args:
            limit: Seconds for the response's head, for a body, and between two payloads of a stream; infinite for none.
            deadline: When the whole call has to end, on the monotonic clock; infinite for never.
            on_new_connection: See the class.
            waits_for_pool: Whether it may have to wait for a connection first, which is not the provider's fault.
        """
        self._limit = limit
        self._deadline = deadline
        self.on_new_connection = on_new_connection
        self.reused = False
        self.answered = False
        self.stream: object = None
        self.timer: asyncio.Timeout | None = None
        self.expires = deadline
        if not waits_for_pool:
            self.extend()

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.expires

    def remaining(self) -> float | None:
        """Return the seconds that are left, at least 0; None for no limit."""
        return None if self.expires == math.inf else max(0.0, self.expires - time.monotonic())

    def extend(self) -> None:
        """Start the limit anew, as the response makes progress; the call's deadline stays."""
        expires = time.monotonic() + self._limit
        self.expires = min(self._deadline, expires)
        if self.timer is not None and (remaining := self.remaining()) is not None:
            self.timer.reschedule(asyncio.get_running_loop().time() + remaining)

    def begin_response(self, response: httpx.Response) -> None:
        """Start the limit anew for the body."""
        self.answered = True
        self.stream = response.extensions.get("network_stream")
        self.extend()

    def check(self) -> None:
        """Raise TimeoutError once the time is up."""
        if self.expired:
            raise TimeoutError

    def begin_drain(self) -> None:
        """Set the time for what follows the end of a reply."""
        self.expires = time.monotonic() + _DRAIN_TIMEOUT_S

    def timeouts(self, timeout: httpx.Timeout) -> dict[str, float | None]:
        """Build httpx's `timeout` extension for the connections of our pools."""
        return {
            "connect": self._timeout(timeout.connect),
            "read": self._timeout(timeout.read),
            "write": self._timeout(timeout.write),
            "pool": None,
        }

    def plain_timeouts(self, timeout: httpx.Timeout) -> dict[str, float | None]:
        """Build httpx's `timeout` extension for a client of the user's, whose connections know no exchange."""
        remaining = self.remaining()
        return {
            phase: seconds if remaining is None else remaining if seconds is None else min(seconds, remaining)
            for phase, seconds in timeout.as_dict().items()
        }

    def overrun(self) -> str:
        """Tell which limit is exceeded, for the text of an error."""
        if self._deadline <= self.expires:
            return "The call's deadline=... has passed."
        return (
            f"No complete answer within {self._limit:g} s, twice the timeout. "
            "A longer timeout=..., or a deadline=..., may help."
        )

    def _timeout(self, seconds: float | None) -> ExchangeTimeout:
        timeout = ExchangeTimeout(math.inf if seconds is None else seconds)
        timeout.exchange = self
        return timeout

    # httpcore's `trace` extension, for clients of the user's: `network.py` does the same for ours.

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Note which connection is used, and whether there is a response."""
        match name.rpartition(".")[0].rpartition(".")[2], name.rpartition(".")[2]:
            case "connect_tcp" | "connect_unix_socket" | "start_tls", "complete":
                self.stream = info["return_value"]
            case "send_request_headers", "started":
                self.reused = self.stream is None
                self.extend()
            case "receive_response_headers", "complete":
                self.answered = True
            case _:
                pass

    async def atrace(self, name: str, info: Mapping[str, Any]) -> None:
        """As `trace`."""
        self.trace(name, info)


class TimedChunks(AsyncIterator[bytes]):
    """Iterates over a body until its exchange expires. Not an async generator: see `AsyncClientLease`."""

    __slots__ = ("_chunks", "_exchange")

    def __init__(self, chunks: AsyncIterator[bytes], exchange: Exchange) -> None:
        self._chunks = chunks
        self._exchange = exchange

    async def __anext__(self) -> bytes:
        async with asyncio.timeout(self._exchange.remaining()):
            return await anext(self._chunks)


current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)
"""The exchange of the current task, for what aiohttp reports without naming a request."""

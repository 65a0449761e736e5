"""Counts requests in work: more than the limit are refused, and at shutdown all new ones are."""

import asyncio
import contextlib
from collections.abc import Generator

from llama_vision.core.errors import RateLimitError, ServerError

_RETRY_AFTER_S = 1.0


class Admission:
    """The requests in work. Used in one event loop only.

    Attributes:
        num_active: How many there are.
        draining: Whether the server is shutting down.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle = asyncio.Event()
        self._idle.set()
        self.num_active = 0
        self.draining = False

    @contextlib.contextmanager
    def admit(self) -> Generator[None]:
        """Count a request while it is in work.

        Raises:
            ServerError: The server is shutting down.
            RateLimitError: Too many are in work.
        """
        if self.draining:
            error = ServerError("The server is shutting down.")
            error.status_code = 503
            raise error
        if self.num_active >= self._limit:
            error = RateLimitError(
                f"{self.num_active} requests are in work already; try again a little later."
            )
            error.status_code, error.retry_after = 429, _RETRY_AFTER_S
            raise error
        self.num_active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_active -= 1
            if not self.num_active:
                self._idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Admit no more, and wait until all have ended, or for so long."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()

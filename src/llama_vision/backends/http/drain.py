"""Drains a response after the end of its event stream, so that its connection can be reused.

A connection whose response was not read to the end has to be closed, at the cost of a handshake for the next call. A
server that keeps the response open after `[DONE]` is not waited for.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import httpx

_DRAIN_TIMEOUT_S = 1.0


def drain(chunks: Iterator[bytes], response: httpx.Response) -> None:
    """Read the rest of a response, for a second at most."""
    watchdog = threading.Timer(_DRAIN_TIMEOUT_S, _shutdown_socket, (response,))
    watchdog.daemon = True
    watchdog.start()
    try:
        # The reply is complete: a failure now only concerns the connection.
        with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
            for _ in chunks:
                pass
    finally:
        watchdog.cancel()


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

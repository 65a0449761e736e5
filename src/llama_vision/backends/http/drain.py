"""Reading what follows the end of a stream, so that its connection can be used again.

Nothing of it matters, but a connection whose answer was not read to the end has to be thrown away: one more handshake
for each call. A server that keeps the answer open after its end mark is not waited for.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import httpx

_DRAIN_TIMEOUT_S = 1.0


def drain(chunks: Iterator[bytes], response: httpx.Response) -> None:
    """Read an answer to its end, for a second at most.

    Args:
        chunks: The rest of it.
        response: Whose it is.

    """
    watchdog = threading.Timer(_DRAIN_TIMEOUT_S, _shutdown_socket, (response,))
    watchdog.daemon = True
    watchdog.start()
    try:
        # The reply is complete: whatever goes wrong now concerns only the connection.
        with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
            for _ in chunks:
                pass
    finally:
        watchdog.cancel()


async def adrain(chunks: AsyncIterator[bytes]) -> None:
    """Read an answer to its end, for a second at most.

    Args:
        chunks: The rest of it.

    """
    with contextlib.suppress(httpx.HTTPError, OSError, TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            async for _ in chunks:
                pass


def _shutdown_socket(response: httpx.Response) -> None:
    """End a read that waits in another thread, which closing the socket would not."""
    stream = response.extensions.get("network_stream")
    if stream is not None and (connection := stream.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

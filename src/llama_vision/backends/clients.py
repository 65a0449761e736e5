"""Connection pools, shared by everything in the process: one for threads, and one for each event loop.

Making an SSL context takes 16 ms, and an async connection belongs to the loop it was made in: a pool that outlives its
loop fails, or sends a request twice. So each loop has its own pool, which closes with the loop.
"""

import asyncio
import atexit
import os
import ssl
import threading
from collections.abc import AsyncGenerator
from functools import lru_cache
from weakref import WeakKeyDictionary

import httpx

# Many calls may wait for a slow model at once: httpx's own limit of 100 would make the others fail with a timeout.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30)

_lock = threading.Lock()
_sync_client: httpx.Client | None = None
_async_clients: "WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None]]]"
_async_clients = WeakKeyDictionary()


def sync_client() -> httpx.Client:
    """Get the client for synchronous calls; it may be used by many threads at once."""
    global _sync_client  # noqa: PLW0603 - one pool for the process is the point
    with _lock:
        if _sync_client is None:
            _sync_client = httpx.Client(verify=_ssl_context(), limits=_LIMITS)
        return _sync_client


async def async_client() -> httpx.AsyncClient:
    """Get the client of the running event loop. It is closed when the loop shuts down."""
    loop = asyncio.get_running_loop()
    if (entry := _async_clients.get(loop)) is None:
        client = httpx.AsyncClient(verify=_ssl_context(), limits=_LIMITS)
        closer = _close_with_loop(loop, client)
        entry = client, closer
        with _lock:
            _drop_closed_loops()
            _async_clients[loop] = entry
        await anext(closer)
    return entry[0]


def _drop_closed_loops() -> None:
    """Let go of loops that were closed without being shut down, as LlamaIndex's `asyncio_run` does in its thread.

    Their connections can't be closed any more, only collected; and a client holds its loop, so no weak key helps.
    """
    for loop in [loop for loop in _async_clients if loop.is_closed()]:
        del _async_clients[loop]


async def _close_with_loop(
    loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient
) -> AsyncGenerator[None]:
    """Wait until the loop shuts its async generators down, as `asyncio.run` does at its end, and close the client."""
    try:
        yield
    finally:
        with _lock:
            _async_clients.pop(loop, None)
        await client.aclose()


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@atexit.register
def _close_sync_client() -> None:
    global _sync_client  # noqa: PLW0603 - see sync_client
    if _sync_client is not None:
        _sync_client.close()
        _sync_client = None


def _forget() -> None:
    """Leave the parent's sockets to the parent."""
    global _sync_client, _lock  # noqa: PLW0603 - see sync_client
    _sync_client = None
    _lock = threading.Lock()
    _async_clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

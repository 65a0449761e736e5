"""Connection pools, shared by everything in the process: for each address one, and one more for each event loop.

Making an SSL context takes 16 ms, and an async connection belongs to the loop it was made in: a pool that outlives its
loop fails, or sends a request twice. So each loop has pools of its own, which close with the loop. Time-outs differ from
call to call and need no pools of their own: httpx takes them with each request.
"""

import asyncio
import atexit
import contextlib
import importlib.util
import os
import ssl
import threading
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import httpx
from typing_extensions import override

from llama_vision.core.errors import MissingDependencyError

# Many calls may wait for a slow model at once: httpx's own limit of 100 would make the others fail with a timeout.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30)

_Client = TypeVar("_Client", httpx.Client, httpx.AsyncClient)


class _NoCookies(httpx.Cookies):
    """Keeps nothing: instances with different accounts share a pool, and looking for cookies takes 25 us a call."""

    @override
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


_NO_COOKIES = _NoCookies()


class _SyncClient(httpx.Client):
    @property
    @override
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride] - there is nothing to set
        return _NO_COOKIES


class _AsyncClient(httpx.AsyncClient):
    @property
    @override
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        return _NO_COOKIES


@dataclass(slots=True)
class _Pool(Generic[_Client]):
    """A client and who uses it. One that was let go of is closed by its last user."""

    client: _Client
    num_leases: int = 0
    retired: bool = False


@dataclass(slots=True)
class _LoopPools:
    """The pools of one event loop, and what closes them with it."""

    closer: AsyncGenerator[None]
    pools: dict[str, _Pool[httpx.AsyncClient]] = field(default_factory=dict[str, _Pool[httpx.AsyncClient]])


_lock = threading.Lock()
_sync_pools: dict[str, _Pool[httpx.Client]] = {}
_loops: "WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopPools]" = WeakKeyDictionary()


@contextlib.contextmanager
def lease_client(base_url: str) -> Generator[httpx.Client]:
    """Use the client for synchronous calls to an address; many threads may at once."""
    with _lock:
        if (pool := _sync_pools.get(base_url)) is None:
            pool = _sync_pools[base_url] = _Pool(_SyncClient(verify=_ssl_context(), limits=_LIMITS))
        pool.num_leases += 1
    try:
        yield pool.client
    finally:
        with _lock:
            pool.num_leases -= 1
            last = pool.retired and not pool.num_leases
        if last:
            pool.client.close()


def close_sync(base_url: str) -> None:
    """Close the connections to an address, those in use as soon as they are not. Later calls make new ones."""
    with _lock:
        if (pool := _sync_pools.pop(base_url, None)) is None:
            return
        pool.retired = True
        idle = not pool.num_leases
    if idle:
        pool.client.close()


class AsyncClientLease:
    """Uses the running event loop's client for an address: `async with AsyncLease(url) as client`.

    A class and no generator: a loop that shuts down closes all async generators at once, in no order.
    """

    __slots__ = ("_base_url", "_pool")

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    async def __aenter__(self) -> httpx.AsyncClient:
        pools = await _loop_pools()
        if (pool := pools.get(self._base_url)) is None:
            pool = pools[self._base_url] = _Pool(_make_async_client())
        pool.num_leases += 1
        self._pool = pool
        return pool.client

    async def __aexit__(self, *_: object) -> None:
        self._pool.num_leases -= 1
        if self._pool.retired and not self._pool.num_leases:
            await self._pool.client.aclose()


async def close_async(base_url: str) -> None:
    """As `close_sync`, for the running event loop."""
    loop = _loops.get(asyncio.get_running_loop())
    if loop is None or (pool := loop.pools.pop(base_url, None)) is None:
        return
    pool.retired = True
    if not pool.num_leases:
        await pool.client.aclose()


async def _loop_pools() -> dict[str, _Pool[httpx.AsyncClient]]:
    loop = asyncio.get_running_loop()
    if (entry := _loops.get(loop)) is None:
        closer = _close_with_loop(loop)
        entry = _LoopPools(closer)
        with _lock:
            _discard_closed_loops()
            _loops[loop] = entry
        await anext(closer)
    return entry.pools


def _discard_closed_loops() -> None:
    """Let go of loops that were closed without being shut down, as LlamaIndex's `asyncio_run` does in its thread.

    Their connections can't be closed any more, only collected; and a client holds its loop, so no weak key helps.
    """
    for loop in [loop for loop in _loops if loop.is_closed()]:
        del _loops[loop]


async def _close_with_loop(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
    """Wait until the loop shuts its async generators down, as `asyncio.run` does at its end, and close its clients."""
    try:
        yield
    finally:
        with _lock:
            entry = _loops.pop(loop, None)
        for pool in entry.pools.values() if entry else ():
            await pool.client.aclose()


_aiohttp_wanted = False


def use_aiohttp(*, enabled: bool = True) -> None:
    """Make new asynchronous clients use aiohttp under httpx's interface; see `llama_vision.use_aiohttp`."""
    global _aiohttp_wanted  # noqa: PLW0603 - a switch for the process is the point
    if enabled and importlib.util.find_spec("httpx_aiohttp") is None:
        raise MissingDependencyError(
            "aiohttp's transport is not installed: pip install 'llama-vision[aiohttp]'"
        )
    _aiohttp_wanted = enabled


def _make_async_client() -> httpx.AsyncClient:
    if not _aiohttp_wanted:
        return _AsyncClient(verify=_ssl_context(), limits=_LIMITS)
    from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415 - an extra that most do without

    return _AsyncClient(transport=AiohttpTransport(verify=_ssl_context(), limits=_LIMITS))


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@atexit.register
def _close_all() -> None:
    for base_url in list(_sync_pools):
        close_sync(base_url)


def _reset_after_fork() -> None:
    """Leave the parent's sockets to the parent."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _sync_pools.clear()
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

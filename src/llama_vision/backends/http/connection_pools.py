"""Connection pools, shared by the whole process: one sync client per base URL, and an async one per event loop.

Creating an SSL context takes 16 ms, and an async connection belongs to its event loop: a pool that outlives its loop
fails, or sends a request twice. So each loop has its own pools, which close with the loop. Timeouts are passed with each
request and need no pools of their own.
"""

import asyncio
import atexit
import errno
import importlib.util
import logging
import os
import ssl
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import httpx
from typing_extensions import override

from llama_vision.backends.http.cancellation import shield
from llama_vision.backends.http.exchange import current_exchange
from llama_vision.backends.http.network import keep_time
from llama_vision.core.errors import ConfigurationError, ConnectionFailedError, MissingDependencyError

# Many calls may wait for a slow model at once: beyond httpx's default of 100, others would time out.
_KEEPALIVE_EXPIRY_S = 30.0
_LIMITS = httpx.Limits(
    max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE_EXPIRY_S
)
_MAX_POOLS = 32  # a program that goes through many addresses would leave a socket at each of them

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

_logger = logging.getLogger("llama_vision")

_Client = TypeVar("_Client", httpx.Client, httpx.AsyncClient)


class _NoCookies(httpx.Cookies):
    """A cookie jar that stays empty: different accounts share a pool, and extracting cookies takes 25 us a call."""

    @override
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


_NO_COOKIES = _NoCookies()


class _SyncClient(httpx.Client):
    @override
    def _send_handling_auth(self, request: httpx.Request, *_: Any, **options: Any) -> httpx.Response:
        """Leave out what our requests don't have, which takes 10 us: logins, redirects that are followed, hooks."""
        return self._send_single_request(request)

    @override
    def _init_transport(self, *args: Any, **options: Any) -> httpx.BaseTransport:
        return keep_time(super()._init_transport(*args, **options))

    @override
    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx.BaseTransport:
        return keep_time(super()._init_proxy_transport(*args, **options))

    @property
    @override
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride] - read-only
        return _NO_COOKIES


class _AsyncClient(httpx.AsyncClient):
    @override
    async def _send_handling_auth(self, request: httpx.Request, *_: Any, **options: Any) -> httpx.Response:
        """As above."""
        return await self._send_single_request(request)

    @override
    def _init_transport(self, *args: Any, **options: Any) -> httpx.AsyncBaseTransport:
        return keep_time(super()._init_transport(*args, **options))

    @override
    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx.AsyncBaseTransport:
        return keep_time(super()._init_proxy_transport(*args, **options))

    @property
    @override
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        return _NO_COOKIES


class _AiohttpClient(_AsyncClient):
    """The hooks of httpx make the transports, so that the proxies of the environment are honoured."""

    @override
    def _init_transport(self, *args: Any, **options: Any) -> httpx.AsyncBaseTransport:
        return _aiohttp_transport()

    @override
    def _init_proxy_transport(
        self, proxy: httpx.Proxy, *args: Any, **options: Any
    ) -> httpx.AsyncBaseTransport:
        if proxy.url.scheme not in ("http", "https"):
            raise ConfigurationError(
                f"aiohttp knows no {proxy.url.scheme} proxy, which an environment variable names. "
                "Leave use_aiohttp() out: httpx does."
            )
        return _aiohttp_transport(proxy)


def keeps_time(client: httpx.Client | httpx.AsyncClient) -> bool:
    """Whether a client's connections end with their exchange by themselves (`network.py`)."""
    return type(client) in (_SyncClient, _AsyncClient)


@dataclass(slots=True)
class _Pool(Generic[_Client]):
    """A client and its number of leases. A retired one is closed with its last lease."""

    client: _Client
    num_leases: int = 0
    retired: bool = False
    last_used: float = 0.0


@dataclass(slots=True)
class _LoopPools:
    """The pools of one event loop, and the async generator that closes them with it."""

    closer: AsyncGenerator[None]
    pools: dict[str, _Pool[httpx.AsyncClient]] = field(default_factory=dict[str, _Pool[httpx.AsyncClient]])


_lock = threading.Lock()
_sync_pools: dict[str, _Pool[httpx.Client]] = {}
_loops: "WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopPools]" = WeakKeyDictionary()


class ClientLease:
    """Leases the shared sync client of a base URL: `with ClientLease(url) as client`. Safe for threads."""

    __slots__ = ("_base_url", "_pool")

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def __enter__(self) -> httpx.Client:
        evicted: list[httpx.Client] = []
        with _lock:
            if (pool := _sync_pools.get(self._base_url)) is None:
                evicted = _evict(_sync_pools)
                pool = _sync_pools[self._base_url] = _Pool(_make(_SyncClient))
            pool.num_leases += 1
        self._pool = pool
        for client in evicted:
            client.close()
        return pool.client

    def __exit__(self, *_: object) -> None:
        pool = self._pool
        with _lock:
            pool.num_leases -= 1
            pool.last_used = time.monotonic()
            last = pool.retired and not pool.num_leases
        if last:
            pool.client.close()


def _evict(pools: dict[str, _Pool[_Client]]) -> list[_Client]:
    """Make room for a new pool, and return the clients to close: those long unused, and the oldest beyond a number."""
    idle = sorted((pool.last_used, base_url) for base_url, pool in pools.items() if not pool.num_leases)
    since = time.monotonic() - _KEEPALIVE_EXPIRY_S
    surplus = len(pools) + 1 - _MAX_POOLS
    return [
        pools.pop(base_url).client
        for number, (last_used, base_url) in enumerate(idle)
        if number < surplus or last_used < since
    ]


def close_sync(base_url: str) -> None:
    """Close the connections to a base URL; those in use as soon as they are not. Later calls open new ones."""
    with _lock:
        if (pool := _sync_pools.pop(base_url, None)) is None:
            return
        pool.retired = True
        idle = not pool.num_leases
    if idle:
        pool.client.close()


class AsyncClientLease:
    """Leases the running event loop's client of a base URL: `async with AsyncClientLease(url) as client`.

    Not an async generator: a loop that shuts down closes all of those at once, in no order.
    """

    __slots__ = ("_base_url", "_pool")

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    async def __aenter__(self) -> httpx.AsyncClient:
        pools = await _loop_pools()
        evicted: list[httpx.AsyncClient] = []
        if (pool := pools.get(self._base_url)) is None:
            evicted = _evict(pools)
            pool = pools[self._base_url] = _Pool(_make_async_client())
        pool.num_leases += 1
        self._pool = pool
        for client in evicted:
            await shield(client.aclose())
        return pool.client

    async def __aexit__(self, *_: object) -> None:
        self._pool.num_leases -= 1
        self._pool.last_used = time.monotonic()
        if self._pool.retired and not self._pool.num_leases:
            await shield(self._pool.client.aclose())


async def close_async(base_url: str) -> None:
    """As `close_sync`, for the running event loop."""
    loop = _loops.get(asyncio.get_running_loop())
    if loop is None or (pool := loop.pools.pop(base_url, None)) is None:
        return
    pool.retired = True
    if not pool.num_leases:
        await shield(pool.client.aclose())


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
    """Drop loops that were closed without being shut down, as LlamaIndex's `asyncio_run` does in its thread.

    Their connections can't be closed any more, only collected; and a client references its loop, so weak keys don't do.
    """
    for loop in [loop for loop in _loops if loop.is_closed()]:
        del _loops[loop]


async def _close_with_loop(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
    """Wait for the loop to shut down its async generators, as `asyncio.run` does at its end, then close its clients."""
    try:
        yield
    finally:
        with _lock:
            entry = _loops.pop(loop, None)
        for pool in entry.pools.values() if entry else ():
            await pool.client.aclose()


_aiohttp_enabled = False


def use_aiohttp(*, enabled: bool = True) -> None:
    """Make new asynchronous clients use aiohttp under httpx's interface; see `llama_vision.use_aiohttp`."""
    global _aiohttp_enabled  # noqa: PLW0603 - a switch for the whole process
    if enabled and importlib.util.find_spec("httpx_aiohttp") is None:
        raise MissingDependencyError(
            "aiohttp's transport is not installed: pip install 'llama-vision[aiohttp]'"
        )
    _aiohttp_enabled = enabled
    _logger.info("New asynchronous clients use %s", "aiohttp" if enabled else "httpx's own transport")


def _make_async_client() -> httpx.AsyncClient:
    return _make(_AiohttpClient if _aiohttp_enabled else _AsyncClient)


def _make(kind: type[_Client]) -> _Client:
    """Make a client; what its environment is wrong about is told before anything is sent."""
    context = _ssl_context()
    try:
        return kind(verify=context, limits=_LIMITS)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        named = [name for name in _PROXY_VARIABLES if os.environ.get(name) or os.environ.get(name.lower())]
        raise ConfigurationError(
            f"The proxy of {' or '.join(named) or 'this system'} can't be used ({type(error).__name__}). It is "
            "http://host:port, https://host:port, or with `pip install httpx[socks]` socks5://host:port."
        ) from error


def _aiohttp_transport(proxy: httpx.Proxy | None = None) -> httpx.AsyncBaseTransport:
    from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415 - an optional extra

    return AiohttpTransport(verify=_ssl_context(), proxy=proxy, client=_aiohttp_session)


def _aiohttp_session() -> Any:
    import aiohttp  # noqa: PLC0415 - an optional extra

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_EXPIRY_S, ssl=_ssl_context())
    # The jar for the reason of `_NoCookies`.
    return aiohttp.ClientSession(
        connector=connector, trace_configs=[trace], cookie_jar=aiohttp.DummyCookieJar()
    )


async def _note_reuse(*_: object) -> None:
    if (exchange := current_exchange.get()) is not None:
        exchange.reused = True


def _check_exists(name: str) -> None:
    """Look for a variable's file, which httpx 0.27 passes over, or for any of its folders, which OpenSSL passes over."""
    value = os.environ[name]
    paths = value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]
    if not any(Path(path).exists() for path in paths):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), value)


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    named = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
    try:
        if named is not None:
            _check_exists(named)
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ConnectionFailedError(f"No connection: {error}") from error
        raise ConfigurationError(
            f"The certificates of {named or 'certifi'} can't be read: {error}"
        ) from error


@atexit.register
def _close_all() -> None:
    for base_url in list(_sync_pools):
        close_sync(base_url)


def _reset_after_fork() -> None:
    """Drop the parent's sockets without closing them."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _sync_pools.clear()
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

"""The connections of our pools: they keep the time of their exchange, and know whether they carried one before.

They wrap httpcore's own, and are given to the pools of httpx's transports, whose constructor doesn't take them.
"""

import math
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any, TypeVar, cast

import httpcore
import httpx
from typing_extensions import override

from llama_vision.backends.http.exchange import Exchange, ExchangeTimeout


class _Connection:
    """What a sync and an async connection share: the exchange that it carries."""

    def __init__(self, connect_timeout: float | None) -> None:
        self._connect_timeout = connect_timeout
        self._exchange: Exchange | None = None

    def _begin_read(self, timeout: float | None) -> float | None:
        """Return the seconds that reading may wait; SOCKS handshakes name none."""
        return _seconds_left(self._connect_timeout if timeout is None else timeout, httpcore.ReadTimeout)

    def _begin_write(self, timeout: float | None) -> float | None:
        """Note what is sent on this connection, and return the seconds that sending may wait."""
        if not isinstance(timeout, ExchangeTimeout):
            return _seconds_left(self._connect_timeout if timeout is None else timeout, httpcore.WriteTimeout)
        exchange = timeout.exchange
        if exchange is not self._exchange:
            exchange.reused = self._exchange is not None
            self._exchange = exchange
            if exchange.reused and exchange.on_new_connection:
                raise httpcore.ConnectionNotAvailable  # the pool takes another one, until it makes a new one
        return _seconds_left(timeout, httpcore.WriteTimeout)


class _Stream(_Connection, httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, connect_timeout: float | None) -> None:
        super().__init__(connect_timeout)
        self._stream = stream
        # The pool asks for it dozens of times in a call, of every connection.
        self.get_extra_info = stream.get_extra_info

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, self._begin_read(timeout))
        if data and self._exchange is not None:
            self._exchange.answered = True
        return data

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._begin_write(timeout))

    @override
    def close(self) -> None:
        self._stream.close()

    @override
    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        seconds = _seconds_left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, seconds), timeout)


class _AsyncStream(_Connection, httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, connect_timeout: float | None) -> None:
        super().__init__(connect_timeout)
        self._stream = stream
        self._socket = stream.get_extra_info("socket")

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, self._begin_read(timeout))
        if data and self._exchange is not None:
            self._exchange.answered = True
        return data

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, self._begin_write(timeout))

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        seconds = _seconds_left(timeout, httpcore.ConnectTimeout)
        return _AsyncStream(await self._stream.start_tls(ssl_context, server_hostname, seconds), timeout)

    @override
    def get_extra_info(self, info: str) -> Any:
        # The pool asks dozens of times in a call, and anyio would look up all about the socket each time.
        return _is_readable(self._socket) if info == "is_readable" else self._stream.get_extra_info(info)


def _is_readable(connection: socket.socket | None) -> bool:
    """Tell whether there is something to read, as where the server has closed; so does httpcore where there is no socket."""
    if connection is None or (number := connection.fileno()) < 0:
        return True
    if not hasattr(select, "poll"):  # on Windows
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


class _Backend(httpcore.SyncBackend):
    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = _seconds_left(timeout, httpcore.ConnectTimeout)
        connect = partial(super().connect_tcp, host, port, seconds, local_address, socket_options)
        limit = timeout.exchange.remaining() if isinstance(timeout, ExchangeTimeout) else timeout
        return _Stream(_connect_in_thread(connect, limit), timeout)


def _connect_in_thread(
    connect: Callable[[], httpcore.NetworkStream], limit: float | None
) -> httpcore.NetworkStream:
    """Connect in a thread of its own: the system's resolver knows no timeout, and no interrupt is handled while it waits.

    The thread is left behind with a look-up that hangs; a connection that comes too late is closed.
    """
    connecting: Future[httpcore.NetworkStream] = Future()

    def run() -> None:
        try:
            connecting.set_result(connect())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            connecting.set_exception(error)

    try:
        threading.Thread(target=run, name="llama-vision-connect", daemon=True).start()
    except RuntimeError as error:  # the system has none to spare
        raise httpcore.ConnectError(str(error)) from error
    try:
        return connecting.result(limit)
    except BaseException as error:
        connecting.add_done_callback(_close)
        if isinstance(error, TimeoutError):
            raise httpcore.ConnectTimeout from error
        raise


def _close(connecting: "Future[httpcore.NetworkStream]") -> None:
    if connecting.exception() is None:
        connecting.result().close()


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._backend: httpcore.AsyncNetworkBackend = cast("Any", httpcore).AnyIOBackend()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        seconds = _seconds_left(timeout, httpcore.ConnectTimeout)
        stream = await self._backend.connect_tcp(host, port, seconds, local_address, socket_options)
        return _AsyncStream(stream, timeout)


_Transport = TypeVar("_Transport", httpx.BaseTransport, httpx.AsyncBaseTransport)


def keep_time(transport: _Transport) -> _Transport:
    """Make the connections of a new transport of httpx keep the time of their exchanges."""
    pool = cast("Any", transport)._pool  # noqa: SLF001 - no parameter leads there
    pool._network_backend = _Backend() if isinstance(transport, httpx.BaseTransport) else _AsyncBackend()  # noqa: SLF001
    return transport


def _seconds_left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """Return the seconds that an operation may wait; raise `error` where there are none."""
    if type(timeout) is not ExchangeTimeout:
        return timeout
    left = timeout.exchange.expires - monotonic()
    if left >= timeout:
        return None if timeout == math.inf else timeout
    if left <= 0:
        raise error
    return left

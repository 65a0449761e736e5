"""Maps httpx's exceptions to this package's errors."""

import contextlib
from collections.abc import Generator

import httpx

from llama_vision.backends.http.exchange import Exchange
from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.core.errors import (
    ConfigurationError,
    ConnectionFailedError,
    LlamaVisionError,
    MalformedReplyError,
    RequestTimeoutError,
    TruncatedStreamError,
)


def map_transport_error(error: httpx.RequestError) -> LlamaVisionError:
    """Map a failure before there was a response."""
    if isinstance(error, httpx.DecodingError):
        return map_stream_error(error)
    # Never connected, so nothing can have been billed: safe to retry, unlike a read timeout.
    if isinstance(error, httpx.TimeoutException) and not isinstance(
        error, (httpx.ConnectTimeout, httpx.PoolTimeout)
    ):
        return RequestTimeoutError(
            f"No answer in time ({type(error).__name__}). A longer timeout=... may help."
        )
    return ConnectionFailedError(f"No connection{_origin(error)}: {_describe(error)}.")


def _origin(error: httpx.RequestError) -> str:
    """Say where a request went, without what may be secret in its address."""
    try:
        url = error.request.url
    except RuntimeError:  # raised by hand, without its request
        return ""
    return f" to {url.scheme}://{url.netloc.decode()}"


def map_stream_error(error: httpx.HTTPError) -> LlamaVisionError:
    """Map a failure while a response was being read."""
    if isinstance(error, httpx.TimeoutException):
        return RequestTimeoutError("The reply stopped coming. The part that arrived is in `.partial`.")
    if isinstance(error, httpx.DecodingError):
        return MalformedReplyError(f"The answer's compression can't be undone: {error}")
    return TruncatedStreamError(
        f"The connection broke before the model had finished ({_describe(error)}). "
        "The part that arrived is in `.partial`."
    )


# Classes, as contextlib's generators take a microsecond more, and every call enters three.

_NO_CONNECTION: tuple[type[Exception], ...] = (OSError, OverflowError, UnicodeError, ExceptionGroup)
"""What sockets and resolvers raise that httpcore lets through: too many open files, a port or a name that can't be."""


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


class MapTransportErrors:
    """Maps failures before there is a response."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, LlamaVisionError) or not isinstance(error, Exception):
            return
        if isinstance(error, (httpx.RequestError, TimeoutError)) and self._exchange.expired:
            raise RequestTimeoutError(self._exchange.overrun()) from error
        if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
            raise ConfigurationError(f"The address can't be used: {error}") from error
        if isinstance(error, httpx.RequestError):
            raise map_transport_error(error) from error
        if isinstance(error, _NO_CONNECTION):
            raise ConnectionFailedError(f"No connection: {_describe(error)}") from error


class AttachPartialReply:
    """Maps failures while a response is read, and attaches what had arrived."""

    __slots__ = ("_exchange", "_reply")

    def __init__(self, reply: ReplyStream, exchange: Exchange) -> None:
        self._reply = reply
        self._exchange = exchange

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LlamaVisionError):
            error.partial = self._reply.partial()
        elif isinstance(error, (httpx.HTTPError, TimeoutError)):
            failure = self._map(error)
            failure.partial = self._reply.partial(truncated=True)
            raise failure from error

    def _map(self, error: Exception) -> LlamaVisionError:
        if self._exchange.expired and not isinstance(error, httpx.DecodingError):
            return RequestTimeoutError(f"{self._exchange.overrun()} The part that arrived is in `.partial`.")
        assert isinstance(error, httpx.HTTPError)
        return map_stream_error(error)


@contextlib.contextmanager
def map_broken_body(exchange: Exchange) -> Generator[None]:
    """Map failures while the body of a response is read that is no reply."""
    try:
        yield
    except (httpx.HTTPError, TimeoutError) as error:
        if isinstance(error, httpx.DecodingError):
            raise map_stream_error(error) from error
        if exchange.expired:
            raise RequestTimeoutError(exchange.overrun()) from error
        raise ConnectionFailedError(f"The answer broke off: {_describe(error)}.") from error

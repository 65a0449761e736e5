"""Maps httpx's exceptions to this package's errors."""

import httpx

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
    return ConnectionFailedError(f"No connection{_origin(error)}: {str(error) or type(error).__name__}.")


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
        return RequestTimeoutError("The stream stopped coming. The part that arrived is in `.partial`.")
    if isinstance(error, httpx.DecodingError):
        return MalformedReplyError(f"The answer's compression can't be undone: {error}")
    return TruncatedStreamError(
        f"The connection broke before the model had finished ({str(error) or type(error).__name__}). "
        "The part that arrived is in `.partial`."
    )


# Classes, as contextlib's generators take a microsecond more, and every call enters three.


class MapTransportErrors:
    """Maps failures before there is a response."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
            raise ConfigurationError(f"The address can't be used: {error}") from error
        if isinstance(error, httpx.RequestError):
            raise map_transport_error(error) from error


class AttachPartialReply:
    """Maps failures while a response is read, and attaches what had arrived."""

    __slots__ = ("_reply",)

    def __init__(self, reply: ReplyStream) -> None:
        self._reply = reply

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.HTTPError):
            failure = map_stream_error(error)
            failure.partial = self._reply.partial()
            raise failure from error
        if isinstance(error, LlamaVisionError):
            error.partial = self._reply.partial()

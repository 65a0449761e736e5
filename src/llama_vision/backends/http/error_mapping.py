"""Failures of the transport in our words, and context managers that put them there."""

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
    """Translate a failure before there was an answer."""
    if isinstance(error, httpx.DecodingError):
        return map_stream_error(error)
    # Not connected at all: nothing can have been billed, so this is not the time-out of a call.
    if isinstance(error, httpx.TimeoutException) and not isinstance(
        error, (httpx.ConnectTimeout, httpx.PoolTimeout)
    ):
        return RequestTimeoutError(
            f"No answer in time ({type(error).__name__}). A longer timeout=... may help."
        )
    return ConnectionFailedError(f"No connection: {str(error) or type(error).__name__}")


def map_stream_error(error: httpx.HTTPError) -> LlamaVisionError:
    """Translate a failure while a stream was being read."""
    if isinstance(error, httpx.TimeoutException):
        return RequestTimeoutError("The stream stopped coming. The part that arrived is in `.partial`.")
    if isinstance(error, httpx.DecodingError):
        return MalformedReplyError(f"The answer's compression can't be undone: {error}")
    return TruncatedStreamError(
        f"The connection broke before the model had finished ({str(error) or type(error).__name__}). "
        "The part that arrived is in `.partial`."
    )


# Classes and no generators: contextlib's take a microsecond more, and every call goes through three.


class MapTransportErrors:
    """Translates failures before there is an answer."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
            raise ConfigurationError(f"The address can't be used: {error}") from error
        if isinstance(error, httpx.RequestError):
            raise map_transport_error(error) from error


class AttachPartialReply:
    """Translates failures while an answer is read, and gives them what had arrived."""

    __slots__ = ("_reader",)

    def __init__(self, reader: ReplyStream) -> None:
        self._reader = reader

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.HTTPError):
            failure = map_stream_error(error)
            failure.partial = self._reader.reply()
            raise failure from error
        if isinstance(error, LlamaVisionError):
            error.partial = self._reader.reply()


class AttachErrorContext:
    """Says in an error which provider and model it comes from."""

    __slots__ = ("_model", "_provider")

    def __init__(self, provider: str, model: str) -> None:
        self._provider = provider
        self._model = model

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LlamaVisionError):
            error.with_context(self._provider, self._model)

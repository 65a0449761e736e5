"""Reading one reply, without I/O: what the synchronous and the asynchronous driver share."""

from collections.abc import Iterator

import httpx

from llama_vision.core.errors import (
    ConnectionFailedError,
    LlamaVisionError,
    MalformedReplyError,
    RequestTimeoutError,
    TruncatedStreamError,
)
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.dialects.dialect import Decoder
from llama_vision.dialects.sse import SseDecoder


class ReplyReader:
    """Turns the body of one answer into events.

    A streamed call may be answered with plain JSON or a web page, by a cache, an error layer or a hotel's network, and
    labels are often wrong: the first byte tells, because no line of an event stream begins like these.

    Attributes:
        done: Whether the reply is complete; whatever else arrives is not looked at.

    """

    __slots__ = ("_decoder", "_events", "_key", "_received", "_sse", "_whole", "done")

    def __init__(self, decoder: Decoder, *, streamed: bool, key: str | None = None) -> None:
        """Begin to read.

        Args:
            decoder: Of the dialect, new.
            streamed: Whether a stream was asked for.
            key: What no error may show, even if the provider repeats it.

        """
        self._decoder = decoder
        self._key = key.encode() if key else None
        self._whole = not streamed
        self._sse: SseDecoder | None = None
        self._received: list[bytes] = []  # all of it, or what came before a stream was known to be one
        self._events: list[Event] = []
        self.done = False

    def feed(self, received: bytes) -> Iterator[Event]:
        """Take in the next bytes and give the events they complete: to be read to its end."""
        if not self.done:
            yield from self._decode(self._payloads(received))

    def close(self) -> Iterator[Event]:
        """Say that no more bytes come, and give the last events: to be read to its end."""
        if self.done:
            return
        if self._whole:
            yield from self._decode([b"".join(self._received)])
        elif self._sse is not None:
            yield from self._decode(self._sse.close())
        if not self.done:
            yield from self._end()

    def reply(self) -> Reply:
        """Add up what was read so far."""
        return Reply.from_events(self._events)

    def _payloads(self, received: bytes) -> list[bytes]:
        if self._sse is not None:
            return self._sse.feed(received)
        self._received.append(received)
        if self._whole:
            return []
        so_far = b"".join(self._received)
        first = so_far.lstrip()[:1]
        if not first:
            return []
        self._whole = first in (b"{", b"[", b"<")
        if self._whole:
            return []
        self._sse = SseDecoder()
        return self._sse.feed(so_far)

    def _decode(self, payloads: list[bytes]) -> Iterator[Event]:
        """Give events as they are found, so that a failure does not take along what came before it."""
        for payload in payloads:
            yield from self._remembered(self._decoded(payload))
            if self._decoder.done:
                yield from self._end()
                return

    def _decoded(self, payload: bytes) -> list[Event]:
        try:
            return self._decoder.feed(payload)
        except LlamaVisionError:
            if self._key is None or self._key not in payload:
                raise
        # The error quotes the key: it is raised anew by the same payload without it.
        return self._decoder.feed(payload.replace(self._key, b"[key]"))

    def _end(self) -> list[Event]:
        events = self._decoder.close()
        self.done = True
        return self._remembered(events)

    def _remembered(self, events: list[Event]) -> list[Event]:
        self._events += events
        return events


def transport_error(error: httpx.RequestError) -> LlamaVisionError:
    """Translate a failure before there was an answer."""
    if isinstance(error, httpx.DecodingError):
        return broken_stream_error(error)
    # Not connected at all: nothing can have been billed, so this is not the time-out of a call.
    if isinstance(error, httpx.TimeoutException) and not isinstance(
        error, (httpx.ConnectTimeout, httpx.PoolTimeout)
    ):
        return RequestTimeoutError(
            f"No answer in time ({type(error).__name__}). A longer timeout=... may help."
        )
    return ConnectionFailedError(f"No connection: {str(error) or type(error).__name__}")


def broken_stream_error(error: httpx.HTTPError) -> LlamaVisionError:
    """Translate a failure while a stream was being read."""
    if isinstance(error, httpx.TimeoutException):
        return RequestTimeoutError("The stream stopped coming. The part that arrived is in `.partial`.")
    if isinstance(error, httpx.DecodingError):
        return MalformedReplyError(f"The answer's compression can't be undone: {error}")
    return TruncatedStreamError(
        f"The connection broke before the model had finished ({str(error) or type(error).__name__}). "
        "The part that arrived is in `.partial`."
    )

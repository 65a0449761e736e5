"""Reading one reply, without I/O: what the synchronous and the asynchronous driver share."""

from typing import Self

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

    Attributes:
        done: Whether the reply is complete; whatever else arrives is not looked at.

    """

    __slots__ = ("_decoder", "_events", "_sse", "_whole", "done")

    def __init__(self, decoder: Decoder, *, streamed: bool) -> None:
        self._decoder = decoder
        self._sse = SseDecoder() if streamed else None
        self._whole: list[bytes] = []
        self._events: list[Event] = []
        self.done = False

    @classmethod
    def for_response(cls, decoder: Decoder, response: httpx.Response) -> Self:
        """Make one for an answer to a streamed call, which a cache or an error layer may give as plain JSON."""
        content_type = response.headers.get("content-type", "")
        return cls(decoder, streamed=not content_type.startswith("application/json"))

    def feed(self, received: bytes) -> list[Event]:
        """Take in the next bytes and give the events they complete."""
        if self.done:
            return []
        if self._sse is None:
            self._whole.append(received)
            return []
        return self._decode(self._sse.feed(received))

    def close(self) -> list[Event]:
        """Say that no more bytes come, and give the last events."""
        if self.done:
            return []
        events = self._decode([b"".join(self._whole)] if self._sse is None else self._sse.close())
        return events if self.done else events + self._end()

    def reply(self) -> Reply:
        """Add up what was read so far."""
        return Reply.from_events(self._events)

    def _decode(self, payloads: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for payload in payloads:
            events += self._decoder.feed(payload)
            if self._decoder.done:
                return self._remember(events) + self._end()
        return self._remember(events)

    def _end(self) -> list[Event]:
        events = self._decoder.close()
        self.done = True
        return self._remember(events)

    def _remember(self, events: list[Event]) -> list[Event]:
        self._events += events
        return events


def transport_error(error: httpx.TransportError) -> LlamaVisionError:
    """Translate a failure before there was an answer."""
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

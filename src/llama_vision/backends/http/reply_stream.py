"""Decodes one HTTP response into events, without I/O; shared by the sync and the async half."""

from collections.abc import Iterator
from dataclasses import replace

from pydantic_core import from_json, to_json

from llama_vision.backends.http.redaction import Redactor
from llama_vision.backends.stop_strings import StopStringFilter
from llama_vision.core.errors import (
    LlamaVisionError,
    MalformedReplyError,
    StreamError,
    TruncatedStreamError,
)
from llama_vision.core.events import (
    Event,
    Finished,
    LogprobsDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from llama_vision.core.models import Price
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import Tool
from llama_vision.dialects.dialect import MAX_PAYLOAD_BYTES, Decoder
from llama_vision.dialects.sse import BOM, HEARTBEATS, SseDecoder
from llama_vision.toolcalls.event_filter import TextToolCallExtractor

_SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_NO_PAYLOADS = HEARTBEATS | {b"", b"null"}
_NO_SECRETS = Redactor(())

MAX_STREAM_BYTES = 256 * 2**20
"""The longest event stream that is read, decompressed: a token of it has some 250 bytes, and 2,500 with 20 logprobs."""


class ReplyStream:
    """Decodes the body of one response into events.

    A streamed call may be answered with JSON or HTML, by a cache, an error page or a captive portal, and content types
    are often wrong: the first byte tells, as no line of an event stream begins like these.

    Attributes:
        done: Whether the reply is complete; what else arrives is ignored.
        progressed: Whether a payload arrived, and not only heartbeats; reset by who asks.
        stopped_early: Whether it was ended here at a stop string, while the provider goes on.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        streamed: bool,
        price: Price | None = None,
        stops: tuple[str, ...] = (),
        tools: tuple[Tool, ...] = (),
        redactor: Redactor = _NO_SECRETS,
    ) -> None:
        """Begin to decode.

        Args:
            decoder: A new decoder of the dialect.
            streamed: Whether a stream was asked for.
            price: For an estimate of the cost, where the provider does not report it.
            stops: Stop strings, where the provider can't stop by itself.
            tools: The tools whose calls are looked for in the text.
            redactor: Of secrets that no error may quote, even if the provider repeats them.
        """
        self._decoder = decoder
        self._price = price
        self._stops = StopStringFilter(stops)
        self._calls = TextToolCallExtractor(tools) if tools else None
        self._redactor = redactor
        self._is_json_body = not streamed
        self._sse: SseDecoder | None = None
        self._received: list[bytes] = []  # a whole body, or what came before an event stream was detected
        self._num_received = 0
        self._builder = ReplyBuilder()
        self.done = False
        self.progressed = False

    @property
    def stopped_early(self) -> bool:
        """See the class."""
        return self._stops.hit and not self._decoder.done

    def add_to_body(self, received: bytes) -> None:
        """Take the next bytes of a whole body.

        Raises:
            MalformedReplyError: There are more than fit a reply.
        """
        self._num_received += len(received)
        if self._num_received > MAX_PAYLOAD_BYTES:
            raise MalformedReplyError(
                f"The reply has more than {MAX_PAYLOAD_BYTES >> 20} MB, and was given up. "
                "Ask for fewer tokens or logprobs, or for a stream."
            )
        self._received.append(received)

    def decode_body(self, rest: bytes = b"") -> Reply:
        """Take the rest of a whole body and decode it, an event stream too, which some gateways send unasked."""
        self.add_to_body(rest)
        body = b"".join(self._received).removeprefix(BOM)
        self._is_json_body = not body.lstrip().startswith(_SSE_FIELDS)
        if self._is_json_body:
            self._process(self._decode_redacted(body))
            self._finish()
        else:
            self._sse = SseDecoder()
            for _ in (*self.feed(body), *self.close()):
                pass  # every event is added up already
        return self._builder.reply()

    def feed(self, received: bytes) -> Iterator[Event]:
        """Decode the next bytes into the events they complete; to be exhausted."""
        return iter(()) if self.done else self._decode(self._payloads(received))

    def close(self) -> Iterator[Event]:
        """End the input and yield the last events; to be exhausted."""
        if self.done:
            return
        if self._is_json_body:
            yield from self._decode([b"".join(self._received).removeprefix(BOM)])
        elif self._sse is not None:
            yield from self._decode(self._sse.close())
        if not self.done:
            yield from self._finish()

    def partial(self, *, truncated: bool = False) -> Reply:
        """Build the reply of what has arrived so far; `truncated` where that is the beginning of a body."""
        if truncated and self._is_json_body and self._received:
            self._decode_truncated_body()
        if self._calls is not None and not self.done:
            for event in self._calls.close():
                self._builder.add(event)
        return self._builder.reply()

    def _decode_truncated_body(self) -> None:
        try:
            beginning = from_json(b"".join(self._received), allow_partial="trailing-strings")
            self._process(self._decoder.feed(to_json(beginning)))
        except (ValueError, LlamaVisionError):
            return  # nothing of an answer has arrived

    def _payloads(self, received: bytes) -> list[bytes]:
        self._num_received += len(received)
        if self._num_received > (MAX_PAYLOAD_BYTES if self._sse is None else MAX_STREAM_BYTES):
            raise MalformedReplyError("The reply is longer than any model's, and was given up.")
        if self._sse is not None:
            return self._sse.feed(received)
        self._received.append(received)
        if self._is_json_body or not received.strip():  # joined once only: there may be much white space
            return []
        body = b"".join(self._received)
        first = body.removeprefix(BOM).lstrip()[:1]
        if not first or BOM.startswith(body):
            return []
        self._is_json_body = first in (b"{", b"[", b"<")
        if self._is_json_body:
            return []
        self._received = []
        self._sse = SseDecoder()
        return self._sse.feed(body)

    def _decode(self, payloads: list[bytes]) -> Iterator[Event]:
        """Yield events one by one, so that those before a failure are not lost."""
        for payload in payloads:
            if payload[:1] != b"{" and self._sse is not None and payload.strip() in _NO_PAYLOADS:
                continue
            self.progressed = True
            yield from self._process(self._decode_redacted(payload))
            if self._decoder.done:
                yield from self._finish()
                return
            if self._stops.hit and not self._is_json_body:
                # The rest is discarded: closing the response saves its cost.
                self.done = True
                yield from self._process([Finished("stop")])
                return

    def _decode_redacted(self, payload: bytes) -> list[Event]:
        try:
            return self._decoder.feed(payload)
        except LlamaVisionError:
            if (redacted := self._redact(payload)) == payload:
                raise
        # The error quotes a secret: raise it again from the redacted payload.
        return self._decoder.feed(redacted)

    def _redact(self, payload: bytes) -> bytes:
        return self._redactor.redact(payload.decode(errors="surrogateescape")).encode(
            errors="surrogateescape"
        )

    def _finish(self) -> list[Event]:
        try:
            events = self._decoder.close()
        except StreamError as error:
            if self._is_json_body and isinstance(error, TruncatedStreamError):
                quoted = self._redact(b"".join(self._received))[:500].decode(errors="replace")
                raise MalformedReplyError(f"The provider's reply holds no answer: {quoted!r}") from error
            error.args = (self._redactor.redact(str(error)),)  # may quote what the provider said
            raise
        self.done = True
        return self._process(events)

    def _process(self, events: list[Event]) -> list[Event]:
        if self._price is not None:
            events = [self._with_cost(event) for event in events]
        if self._stops:
            events = self._apply_stop_strings(events)
        if self._calls is not None:
            events = self._calls.process(events)
        for event in events:
            self._builder.add(event)
        return events

    def _with_cost(self, event: Event) -> Event:
        """Estimate the cost where the provider does not report it."""
        if not isinstance(event, UsageReport) or event.usage.cost_usd is not None or self._price is None:
            return event
        cost = self._price.estimate(event.usage)
        return (
            event if cost is None else UsageReport(replace(event.usage, cost_usd=cost, cost_is_estimate=True))
        )

    def _apply_stop_strings(self, events: list[Event]) -> list[Event]:
        """End the reply at a stop string, without the tool calls behind it, but with the usage."""
        kept: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                if text := self._stops.feed(event.text):
                    kept.append(TextDelta(text))
                continue
            if isinstance(event, ToolCallDelta | Finished) and (held := self._stops.flush()):
                kept.append(TextDelta(held))
            if isinstance(event, Finished):
                kept.append(Finished("stop") if self._stops.hit else event)
            elif not (self._stops.hit and isinstance(event, ToolCallDelta | ReasoningDelta | LogprobsDelta)):
                kept.append(event)
        return kept

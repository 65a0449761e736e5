"""Reading one reply, without I/O: what the synchronous and the asynchronous driver share."""

from collections.abc import Iterator
from dataclasses import replace

from llama_vision.backends.stop_strings import StopStringFilter
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.events import Event, Finished, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.models import Price
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import Tool
from llama_vision.dialects.dialect import Decoder
from llama_vision.dialects.sse import SseDecoder
from llama_vision.toolcalls import TextToolCallExtractor


class ReplyStream:
    """Turns the body of one answer into events.

    A streamed call may be answered with plain JSON or a web page, by a cache, an error layer or a hotel's network, and
    labels are often wrong: the first byte tells, because no line of an event stream begins like these.

    Attributes:
        done: Whether the reply is complete; whatever else arrives is not looked at.
        stopped_early: Whether it was ended here at a stop text, while the provider goes on.

    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        streamed: bool,
        price: Price | None = None,
        stops: tuple[str, ...] = (),
        tools: tuple[Tool, ...] = (),
        redacted: tuple[str, ...] = (),
    ) -> None:
        """Begin to read.

        Args:
            decoder: Of the dialect, new.
            streamed: Whether a stream was asked for.
            price: What to estimate the cost with, where the provider does not tell it.
            stops: Texts to end the reply at, where the provider can't.
            tools: Those whose calls are looked for in the words.
            redacted: What no error may show, even if the provider repeats it.

        """
        self._decoder = decoder
        self._price = price
        self._stops = StopStringFilter(stops)
        self._calls = TextToolCallExtractor(tools) if tools else None
        self._secrets = tuple(secret.encode() for secret in redacted)
        self._is_json_body = not streamed
        self._sse: SseDecoder | None = None
        self._received: list[bytes] = []  # all of it, or what came before a stream was known to be one
        self._builder = ReplyBuilder()
        self.done = False

    @property
    def stopped_early(self) -> bool:
        """See the class."""
        return self._stops.hit and not self._decoder.done

    def decode_body(self, body: bytes) -> Reply:
        """Read an answer that is there as a whole."""
        self._is_json_body = True
        self._process(self._decode_redacted(body))
        self._finish()
        return self._builder.reply()

    def feed(self, received: bytes) -> Iterator[Event]:
        """Take in the next bytes and give the events they complete: to be read to its end."""
        if not self.done:
            yield from self._decode(self._payloads(received))

    def close(self) -> Iterator[Event]:
        """Say that no more bytes come, and give the last events: to be read to its end."""
        if self.done:
            return
        if self._is_json_body:
            yield from self._decode([b"".join(self._received)])
        elif self._sse is not None:
            yield from self._decode(self._sse.close())
        if not self.done:
            yield from self._finish()

    def reply(self) -> Reply:
        """Add up what was read so far."""
        if self._calls is not None and not self.done:
            for event in self._calls.close():
                self._builder.add(event)
        return self._builder.reply()

    def _payloads(self, received: bytes) -> list[bytes]:
        if self._sse is not None:
            return self._sse.feed(received)
        self._received.append(received)
        if self._is_json_body:
            return []
        so_far = b"".join(self._received)
        first = so_far.lstrip()[:1]
        if not first:
            return []
        self._is_json_body = first in (b"{", b"[", b"<")
        if self._is_json_body:
            return []
        self._sse = SseDecoder()
        return self._sse.feed(so_far)

    def _decode(self, payloads: list[bytes]) -> Iterator[Event]:
        """Give events as they are found, so that a failure does not take along what came before it."""
        for payload in payloads:
            yield from self._process(self._decode_redacted(payload))
            if self._decoder.done:
                yield from self._finish()
                return
            if self._stops.hit and not self._is_json_body:
                # Nothing more of it is wanted, so it need not be paid for.
                self.done = True
                yield from self._process([Finished("stop")])
                return

    def _decode_redacted(self, payload: bytes) -> list[Event]:
        try:
            return self._decoder.feed(payload)
        except LlamaVisionError:
            if not any(secret in payload for secret in self._secrets):
                raise
        # The error quotes a secret: it is raised anew by the same payload without it.
        for secret in self._secrets:
            payload = payload.replace(secret, b"[secret]")
        return self._decoder.feed(payload)

    def _finish(self) -> list[Event]:
        events = self._decoder.close()
        self.done = True
        return self._process(events)

    def _process(self, events: list[Event]) -> list[Event]:
        shown = events if self._price is None else [self._with_cost(event) for event in events]
        if self._stops:
            shown = self._apply_stop_strings(shown)
        if self._calls is not None:
            shown = self._calls.process(shown)
        for event in shown:
            self._builder.add(event)
        return shown

    def _with_cost(self, event: Event) -> Event:
        """Estimate the cost of a reply whose provider does not tell it."""
        if not isinstance(event, UsageReport) or event.usage.cost_usd is not None or self._price is None:
            return event
        cost = self._price.estimate(event.usage)
        return (
            event if cost is None else UsageReport(replace(event.usage, cost_usd=cost, cost_is_estimate=True))
        )

    def _apply_stop_strings(self, events: list[Event]) -> list[Event]:
        """End the reply at a stop text: calls behind it would not have been made. The counts stay."""
        shown: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                if text := self._stops.feed(event.text):
                    shown.append(TextDelta(text))
                continue
            if isinstance(event, ToolCallDelta | Finished) and (held := self._stops.flush()):
                shown.append(TextDelta(held))
            if isinstance(event, Finished):
                shown.append(Finished("stop") if self._stops.hit else event)
            elif not (self._stops.hit and isinstance(event, ToolCallDelta)):
                shown.append(event)
        return shown

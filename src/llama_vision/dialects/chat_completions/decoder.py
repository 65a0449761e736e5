"""From the payloads of a chat completion to events: one decoder for streamed chunks and for whole bodies."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from llama_vision.core.errors import MalformedReplyError, StatusError, TruncatedStreamError
from llama_vision.core.events import Event, Finished, Started, TextDelta, UsageReport
from llama_vision.core.json_types import as_mapping
from llama_vision.core.usage import Usage
from llama_vision.dialects.chat_completions.tool_call_assembler import ToolCallAssembler
from llama_vision.dialects.chat_completions.wire import (
    WireChoice,
    WireCompletion,
    WireMessage,
    WireUsage,
)
from llama_vision.dialects.error_bodies import error_in_body, find_request_id
from llama_vision.toolcalls.special_tokens import TrailingSpecialTokenFilter

_DONE = b"[DONE]"
_NO_USAGE = Usage()
_USD_PER_NEURON = 0.011 / 1000
"""Cloudflare's list price, after the 10,000 neurons a day that are free, so that a cost made of it is an estimate.
https://developers.cloudflare.com/workers-ai/platform/pricing/"""


def parse_completion(payload: bytes) -> WireCompletion:
    """Parse a payload.

    Args:
        payload: JSON text.

    Returns:
        What it says.

    Raises:
        MalformedReplyError: It can't be read.
        StatusError: It tells of a failure.

    """
    try:
        completion = WireCompletion.model_validate_json(payload)
    except ValidationError as error:
        if failure := error_in_body(payload):
            raise failure from error
        shown = payload[:200].decode(errors="replace")
        raise MalformedReplyError(f"The provider sent something that can't be read: {shown!r}") from error
    # Nothing that an answer has: a failure behind a 200, or a chunk of the provider's own such as a cost report.
    answers = not (completion.choices is None and completion.usage is None and completion.meta is None)
    if (completion.error is not None or not answers) and (failure := error_in_body(payload)):
        raise failure
    return completion


class ChatCompletionsDecoder:
    """Reads one reply; see `Decoder`."""

    def __init__(
        self,
        model: str,
        headers: Mapping[str, str],
        *,
        read: Callable[[bytes], WireCompletion] = parse_completion,
        max_tokens: int | None = None,
    ) -> None:
        """Begin to read.

        Args:
            model: Who was asked.
            headers: Of the answer; some tell the cost.
            read: Parses a payload; a dialect of another shape brings its own.
            max_tokens: What the reply was limited to, where the provider does not say that it was cut.

        """
        self._model = model
        self._request_id = find_request_id(headers)
        self._read = read
        self._max_tokens = max_tokens
        self._started = False
        self._whole = False
        self.done = False
        self._finish_reason: str | None = None
        cost = cost_in_headers(headers)
        self._usage = _NO_USAGE if cost is None else Usage(cost_usd=cost)
        self._reported = _NO_USAGE
        self._text = TrailingSpecialTokenFilter()
        self._calls = ToolCallAssembler()

    def feed(self, payload: bytes) -> list[Event]:
        """Take in the next payload; see `Decoder.feed`."""
        if self.done:
            return []
        if payload == _DONE:
            self.done = True
            return []
        try:
            completion = self._read(payload)
        except StatusError as failure:
            failure.request_id = failure.request_id or self._request_id
            raise
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(Started(completion.model or self._model, completion.id, self._request_id))
            self._report_usage(events)  # what the headers told, in case the reply is left before its end
        for choice in completion.choices or ():
            if not choice.index:  # only one answer is ever asked for
                self._handle_choice(choice, events)
        self._handle_usage(completion)
        if completion.usage is not None:
            self._report_usage(events)
        return events

    def close(self) -> list[Event]:
        """Say that no more payloads come; see `Decoder.close`."""
        if not self._started or not (self.done or self._whole or self._finish_reason):
            raise TruncatedStreamError(
                "The stream ended before the model had finished. The part that arrived is in `.partial`."
            )
        events: list[Event] = []
        if rest := self._text.close():
            events.append(TextDelta(rest))
        events += self._calls.close(cut=self._finish_reason == "length")
        self._report_usage(events)  # the cost may stand in the headers, or come in a chunk without counts
        events.append(Finished(self._finish_reason or self._infer_finish_reason()))
        return events

    def _infer_finish_reason(self) -> str:
        """Say why a reply ended whose provider does not (Cloudflare's native one)."""
        if self._calls.count:
            return "tool_calls"
        return "length" if self._max_tokens and self._usage.output_tokens == self._max_tokens else "stop"

    def _handle_choice(self, choice: WireChoice, events: list[Event]) -> None:
        if choice.message is not None:
            self._whole = True
            _check_not_empty(choice, choice.message)
        message = choice.delta or choice.message
        if message is not None:
            self._handle_message(message, events)
        # A second finish chunk (Cloudflare /ai/v1) says nothing new.
        self._finish_reason = self._finish_reason or choice.finish_reason

    def _handle_message(self, message: WireMessage, events: list[Event]) -> None:
        content = message.content or message.refusal
        if content:
            text = self._text.feed(content if isinstance(content, str) else _join_blocks(content))
            if text:
                events.append(TextDelta(text))
        calls = message.tool_calls or ()
        for position, call in enumerate(calls):
            delta = (
                self._calls.start_call(call)
                if self._whole
                else self._calls.add_fragment(call, position, len(calls))
            )
            if delta is not None:
                events.append(delta)

    def _handle_usage(self, completion: WireCompletion) -> None:
        wires = [completion.usage, completion.x_groq and completion.x_groq.usage]
        for wire in wires:
            if wire is not None:
                usage = _usage(wire)
                self._usage = usage if self._usage is _NO_USAGE else self._usage.merge(usage)
        if completion.meta is not None and completion.meta.usage is not None:
            self._usage = self._usage.merge(Usage(cost_usd=_finite(completion.meta.usage.usd_spent)))

    def _report_usage(self, events: list[Event]) -> None:
        if self._usage != self._reported:
            self._reported = self._usage
            events.append(UsageReport(self._usage))


def _check_not_empty(choice: WireChoice, message: WireMessage) -> None:
    """Refuse an answer of nothing, such as Cloudflare's /ai/v1 gives to an image it did not look at."""
    said = message.content is not None or message.refusal is not None or message.tool_calls
    if not said and choice.finish_reason in (None, "stop"):
        raise MalformedReplyError(
            "The provider answered with nothing: neither text nor tool calls. It may not have understood the request; "
            "where there is an image, it may not take images in this way."
        )


def _join_blocks(content: list[Any]) -> str:
    """Read content that is a list of blocks."""
    return "".join(
        block if isinstance(block, str) else str(as_mapping(block).get("text") or "") for block in content
    )


def _usage(wire: WireUsage) -> Usage:
    details = wire.prompt_tokens_details
    told = _finite(wire.estimated_cost if wire.cost is None else wire.cost)
    neurons = _finite(wire.neurons)
    if told is None and neurons is not None:
        cost, estimated = neurons * _USD_PER_NEURON, True
    else:
        cost, estimated = told, False
    return Usage(
        input_tokens=_to_int(wire.prompt_tokens),
        output_tokens=_to_int(wire.completion_tokens),
        cached_input_tokens=_to_int(details.cached_tokens) if details else None,
        cost_usd=cost,
        cost_is_estimate=estimated,
    )


def cost_in_headers(headers: Mapping[str, str]) -> float | None:
    """Find what the call cost, in US dollars: AIGateway and AI/ML API say so in a header."""
    for name, unit in (("x-cost-cents", 0.01), ("x-aimlapi-usd-spent", 1.0)):
        if name in headers:
            with contextlib.suppress(ValueError):
                return _finite(float(headers[name]) * unit)
    return None


def _to_int(value: float | None) -> int | None:
    known = _finite(value)
    return None if known is None else int(known)


def _finite(value: float | None) -> float | None:
    """Take NaN and Infinity, which Python's own json module writes, for what they are: nobody said."""
    return value if value is not None and math.isfinite(value) else None

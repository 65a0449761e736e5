"""From the payloads of a chat completion to events: one decoder for streamed chunks and for whole bodies."""

import json
import math
import uuid
from typing import Any

from pydantic import ValidationError

from llama_vision.core.errors import MalformedReplyError, TruncatedStreamError
from llama_vision.core.events import Event, Finished, Started, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.untyped import as_object
from llama_vision.core.usage import Usage
from llama_vision.dialects.chat_completions_wire import (
    WireChoice,
    WireCompletion,
    WireFunction,
    WireMessage,
    WireToolCall,
    WireUsage,
)
from llama_vision.dialects.error_bodies import error_in_reply
from llama_vision.dialects.stop_tokens import StopTokenFilter

_DONE = b"[DONE]"


class ChatCompletionsDecoder:
    """Reads one reply; see `Decoder`."""

    def __init__(self, model: str, request_id: str | None = None) -> None:
        self._model = model
        self._request_id = request_id
        self._started = False
        self._whole = False
        self.done = False
        self._finish_reason: str | None = None
        self._usage = Usage()
        self._text = StopTokenFilter()
        self._calls = _CallIndex()

    def feed(self, payload: bytes) -> list[Event]:
        """Take in the next payload; see `Decoder.feed`."""
        if self.done:
            return []
        if payload == _DONE:
            self.done = True
            return []
        completion = _read(payload)
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(Started(completion.model or self._model, completion.id, self._request_id))
        for choice in completion.choices or ():
            if not choice.index:  # only one answer is ever asked for
                self._take_choice(choice, events)
        if completion.usage is not None:
            self._take_usage(completion.usage, events)
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
        events += self._calls.close()
        events.append(Finished(self._finish_reason or ("tool_calls" if self._calls.count else "stop")))
        return events

    def _take_choice(self, choice: WireChoice, events: list[Event]) -> None:
        if choice.message is not None:
            self._whole = True
        message = choice.delta or choice.message
        if message is not None:
            self._take_message(message, events)
        # A second finish chunk (Cloudflare /ai/v1) says nothing new.
        self._finish_reason = self._finish_reason or choice.finish_reason

    def _take_message(self, message: WireMessage, events: list[Event]) -> None:
        content = message.content or message.refusal
        if content:
            text = self._text.feed(content if isinstance(content, str) else _joined(content))
            if text:
                events.append(TextDelta(text))
        calls = message.tool_calls or ()
        for position, call in enumerate(calls):
            delta = self._calls.new(call) if self._whole else self._calls.delta(call, position, len(calls))
            if delta is not None:
                events.append(delta)

    def _take_usage(self, wire: WireUsage, events: list[Event]) -> None:
        details = wire.prompt_tokens_details
        usage = self._usage.merged(
            Usage(
                input_tokens=_count(wire.prompt_tokens),
                output_tokens=_count(wire.completion_tokens),
                cached_input_tokens=_count(details.cached_tokens) if details else None,
                cost_usd=_finite(wire.estimated_cost if wire.cost is None else wire.cost),
            )
        )
        if usage != self._usage:
            self._usage = usage
            events.append(UsageReport(usage))


class _CallIndex:
    """Tells which call a fragment belongs to, and gives every call one id, one name, and its index.

    A host may leave the index out, or send 0 for every call with a new id each time (litellm#14587, ollama#7881).
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_wire_index: dict[int, int] = {}
        self._ids: list[str] = []
        self._wire_ids: list[str | None] = []  # as they came: missing, or the same for two calls
        self._empty: set[int] = set()  # calls whose arguments have not begun

    def delta(self, wire: WireToolCall, position: int, together: int) -> ToolCallDelta | None:
        """Read one fragment of a stream.

        Args:
            wire: The fragment.
            position: Its place in the chunk, from 0.
            together: How many fragments the chunk has.

        Returns:
            The delta; None where the fragment says nothing.

        """
        function = wire.function or WireFunction()
        arguments = _arguments(function.arguments)
        if not (wire.id or function.name or arguments):  # Cloudflare ends its calls with an empty fragment
            return None
        index = self._find(wire, function.name, position if together > 1 else self.count - 1)
        if index is None:
            return self.new(wire)
        if not arguments:
            return None
        self._empty.discard(index)
        return ToolCallDelta(index, None, None, arguments)

    def _find(self, wire: WireToolCall, name: str | None, usual: int) -> int | None:
        """Find the call that a fragment goes on with; None for a new one."""
        known = None if wire.index is None else self._by_wire_index.get(wire.index)
        if known is not None and (not wire.id or wire.id == self._wire_ids[known]):
            return known
        if wire.id and wire.id in self._ids:
            # An id that comes again under an index of its own and with a name belongs to two calls.
            return None if known is None and wire.index is not None and name else self._ids.index(wire.id)
        if wire.index is not None or wire.id or name or not self.count:
            return None
        return min(usual, self.count - 1)

    def new(self, wire: WireToolCall) -> ToolCallDelta:
        """Begin a call; in a whole body every entry is one."""
        function = wire.function or WireFunction()
        arguments = _arguments(function.arguments)
        index = self.count
        self.count += 1
        # Calls without an id (Cloudflare), or with one twice, could not be told apart when their results come back.
        call_id = wire.id if wire.id and wire.id not in self._ids else f"call_{uuid.uuid4().hex[:24]}"
        self._ids.append(call_id)
        self._wire_ids.append(wire.id)
        if wire.index is not None:
            self._by_wire_index[wire.index] = index
        if not arguments.strip():
            self._empty.add(index)
        return ToolCallDelta(index, call_id, function.name, arguments)

    def close(self) -> list[Event]:
        """Give calls without arguments the empty object they mean."""
        return [ToolCallDelta(index, None, None, "{}") for index in sorted(self._empty)]


def _read(payload: bytes) -> WireCompletion:
    try:
        completion = WireCompletion.model_validate_json(payload)
    except ValidationError as error:
        if failure := error_in_reply(payload):
            raise failure from error
        shown = payload[:200].decode(errors="replace")
        raise MalformedReplyError(f"The provider sent something that can't be read: {shown!r}") from error
    # Nothing that an answer has: a failure behind a 200, or a chunk of the provider's own such as a cost report.
    answers = completion.choices is not None or completion.usage is not None
    if (completion.error is not None or not answers) and (failure := error_in_reply(payload)):
        raise failure
    return completion


def _arguments(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _joined(content: list[Any]) -> str:
    """Read content that is a list of blocks."""
    return "".join(
        block if isinstance(block, str) else str(as_object(block).get("text") or "") for block in content
    )


def _count(value: float | None) -> int | None:
    known = _finite(value)
    return None if known is None else int(known)


def _finite(value: float | None) -> float | None:
    """Take NaN and Infinity, which Python's own json module writes, for what they are: nobody said."""
    return value if value is not None and math.isfinite(value) else None

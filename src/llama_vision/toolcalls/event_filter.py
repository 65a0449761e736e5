"""Extracts tool calls from the text of a reply, beside the native ones that the provider reports."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import cast

from llama_vision.core.events import Event, Finished, TextDelta, ToolCallDelta
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import ReplyBuilder
from llama_vision.core.request import Tool
from llama_vision.toolcalls.parser import ToolCallParser

_NATURAL_STOP_REASONS = ("stop", "eos")
"""Finish reasons of a reply that the model ended itself."""


class TextToolCallExtractor:
    """Rewrites the events of one reply.

    Text is parsed until the provider reports a native call, and unchanged from then on. A native call that repeats one of the
    text before is dropped.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Begin a reply to a request with these tools."""
        self._parser = ToolCallParser(tools)
        self._text_calls = ReplyBuilder()
        self._has_text_calls = False
        self._native: list[ToolCallDelta] = []  # held back, where the text has calls too
        self._parses_text = True

    def process(self, events: Iterable[Event]) -> list[Event]:
        """Return the next events, with tool call deltas in place of the text of calls."""
        processed: list[Event] = []
        for event in events:
            match event:
                case TextDelta() if self._parses_text:
                    processed += self._record_calls(self._parser.feed(event.text))
                case ToolCallDelta():
                    processed += self._close_text(cut=False)
                    if self._has_text_calls:
                        self._native.append(event)
                    else:
                        processed.append(event)
                case Finished():
                    processed += self._close_text(cut=event.reason == "length")
                    processed += self._new_native_calls()
                    processed.append(self._finish(event))
                case _:
                    processed.append(event)
        return processed

    def close(self) -> list[Event]:
        """Return what was held back, where the reply breaks off."""
        return [*self._close_text(cut=True), *self._new_native_calls()]

    def _close_text(self, *, cut: bool) -> list[Event]:
        if not self._parses_text:
            return []
        self._parses_text = False
        return self._record_calls(self._parser.close(cut=cut))

    def _record_calls(self, deltas: list[TextDelta | ToolCallDelta]) -> list[Event]:
        for delta in deltas:
            if isinstance(delta, ToolCallDelta):
                self._has_text_calls = True
                self._text_calls.add(delta)
        return list[Event](deltas)

    def _new_native_calls(self) -> list[Event]:
        """Return the native calls that are not among those in the text, under indices of their own."""
        deltas, self._native = self._native, []
        native = ReplyBuilder()
        for delta in deltas:
            native.add(delta)
        in_text, unfinished = self._text_calls.calls_by_index(), self._parser.unfinished
        known = {_call_key(call) for index, call in in_text if index not in unfinished}
        new = [index for index, call in native.calls_by_index() if _call_key(call) not in known]
        indices = {index: len(in_text) + position for position, index in enumerate(new)}
        return [replace(delta, index=indices[delta.index]) for delta in deltas if delta.index in indices]

    def _finish(self, event: Finished) -> Finished:
        """Correct the finish reason, which the provider chose without knowing of the calls, and retract unfinished ones.

        A call that was cut off at max_tokens stays: with more tokens it would have been one.
        """
        unfinished = self._parser.unfinished
        complete = len(self._text_calls.tool_calls) > len(unfinished)
        return Finished(
            "tool_calls" if complete and event.reason in _NATURAL_STOP_REASONS else event.reason,
            retracted_tool_calls=frozenset() if event.reason == "length" else unfinished,
        )


def _call_key(call: ToolCall) -> tuple[str, Hashable]:
    try:
        return call.name, _frozen(call.parsed())
    except (ValueError, RecursionError):
        return call.name, call.arguments


def _frozen(value: object) -> Hashable:
    """Make a JSON value hashable, equal where the value is."""
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return frozenset((name, _frozen(field)) for name, field in fields.items())
    if isinstance(value, list):
        return tuple(map(_frozen, cast("list[object]", value)))
    return cast("Hashable", value)

"""Tool calls in the words of a reply, beside those that the provider found itself."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from llama_vision.core.events import Event, Finished, TextDelta, ToolCallDelta
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import ReplyBuilder
from llama_vision.core.request import Tool
from llama_vision.toolcalls.parser import ToolCallParser

_NATURAL_STOP_REASONS = ("stop", "eos")
"""What hosts say of a reply that the model ended itself."""


class TextToolCallExtractor:
    """Rewrites the events of one reply.

    Words are read until the provider reports a call itself: from then on they are words. It may report one that stood in the
    words before; that one is taken once.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Begin to read.

        Args:
            tools: Those on offer.

        """
        self._parser = ToolCallParser(tools)
        self._found = ReplyBuilder()  # the calls in the words
        self._reported: list[ToolCallDelta] = []  # by the provider, after some were found in the words
        self._reads_words = True

    def process(self, events: Iterable[Event]) -> list[Event]:
        """Take in the next events.

        Args:
            events: As a dialect or the local model gives them.

        Returns:
            The same, with pieces of calls in place of the words that they stood in.

        """
        read: list[Event] = []
        for event in events:
            match event:
                case TextDelta() if self._reads_words:
                    read += self._remembered(self._parser.feed(event.text))
                case ToolCallDelta():
                    read += self._close_text(cut=False)
                    if self._found.tool_calls:
                        self._reported.append(event)
                    else:
                        read.append(event)
                case Finished():
                    read += self._close_text(cut=event.reason == "length")
                    read += self._new_native_calls()
                    read.append(self._last(event))
                case _:
                    read.append(event)
        return read

    def close(self) -> list[Event]:
        """Give what was held back, where the reply breaks off.

        Returns:
            The last events.

        """
        return [*self._close_text(cut=True), *self._new_native_calls()]

    def _close_text(self, *, cut: bool) -> list[Event]:
        if not self._reads_words:
            return []
        self._reads_words = False
        return self._remembered(self._parser.close(cut=cut))

    def _remembered(self, deltas: list[TextDelta | ToolCallDelta]) -> list[Event]:
        for delta in deltas:
            if isinstance(delta, ToolCallDelta):
                self._found.add(delta)
        return list[Event](deltas)

    def _new_native_calls(self) -> list[Event]:
        """Give the reported calls that are not among those in the words, under indices of their own."""
        deltas, self._reported = self._reported, []
        reported = ReplyBuilder()
        for delta in deltas:
            reported.add(delta)
        found, unfinished = self._found.calls_by_index(), self._parser.unfinished
        count = len(found)
        known = [_call_key(call) for index, call in found if index not in unfinished]
        new = [index for index, call in reported.calls_by_index() if _call_key(call) not in known]
        return [
            replace(delta, index=count + new.index(delta.index)) for delta in deltas if delta.index in new
        ]

    def _last(self, event: Finished) -> Finished:
        """Say that the reply ended for its calls, where the provider took them for words, and what was no call after all.

        A call that was cut off stays, to be seen: with more room it would have been one.
        """
        unfinished = self._parser.unfinished
        complete = len(self._found.tool_calls) > len(unfinished)
        return Finished(
            "tool_calls" if complete and event.reason in _NATURAL_STOP_REASONS else event.reason,
            retracted_tool_calls=frozenset() if event.reason == "length" else unfinished,
        )


def _call_key(call: ToolCall) -> tuple[str, object]:
    try:
        return call.name, call.parsed()
    except ValueError:
        return call.name, call.arguments

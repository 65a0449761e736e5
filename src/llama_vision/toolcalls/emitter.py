"""Collects text and fragments of tool calls into as few events as possible."""

import os
from collections.abc import Sequence
from typing import TypeAlias

from llama_vision.core.events import TextDelta, ToolCallDelta
from llama_vision.core.surrogates import JsonSurrogateJoiner

Delta: TypeAlias = TextDelta | ToolCallDelta


class DeltaEmitter:
    """Collects the events of a reply until they are drained.

    Attributes:
        count: Number of calls that have begun.
        unfinished: Indices of those that have not ended.
    """

    __slots__ = ("_arguments", "_events", "_halves", "_head", "_ids", "_text", "count", "unfinished")

    def __init__(self) -> None:
        self.count = 0
        self.unfinished: set[int] = set()
        self._ids: set[str] = set()
        self._events: list[Delta] = []
        self._text: list[str] = []
        self._head: tuple[str, str] | None = None  # id and name, which go with the first fragment
        self._arguments: list[str] = []
        self._halves = JsonSurrogateJoiner()

    def text(self, piece: str) -> None:
        """Add text."""
        if piece:
            self._text.append(piece)

    def begin(self, name: str, call_id: str | None, arguments: Sequence[str]) -> None:
        """Begin a call. An id of the model's own that is missing or was used before is replaced."""
        self._flush()
        if not call_id or call_id in self._ids:
            call_id = f"call_{os.urandom(12).hex()}"
        self._ids.add(call_id)
        self._head = (call_id, name)
        self._arguments = list(arguments)
        self._halves = JsonSurrogateJoiner()
        self.unfinished.add(self.count)
        self.count += 1

    def argument(self, piece: str) -> None:
        """Add to the arguments of the current call."""
        if piece:
            self._arguments.append(piece)

    def end(self) -> None:
        """End the current call."""
        self.argument("}")
        self.unfinished.discard(self.count - 1)

    def drain(self) -> list[Delta]:
        """Return the events since the last time."""
        self._flush()
        events, self._events = self._events, []
        return events

    def _flush(self) -> None:
        self._flush_call()
        if self._text:
            self._events.append(TextDelta("".join(self._text)))
            self._text = []

    def _flush_call(self) -> None:
        if self._head is None and not self._arguments:
            return
        call_id, name = self._head or (None, None)
        arguments = self._halves.feed("".join(self._arguments))
        if call_id or arguments:
            self._events.append(ToolCallDelta(self.count - 1, call_id, name, arguments))
        self._head, self._arguments = None, []


class PendingCall:
    """A call that begins in the output once its name is known and its arguments have begun."""

    __slots__ = ("_begun", "_held", "_output", "call_id", "name")

    def __init__(self, output: DeltaEmitter, name: str | None = None) -> None:
        self._output = output
        self._held: list[str] = []
        self._begun = False
        self.name = name
        self.call_id: str | None = None

    @property
    def has_arguments(self) -> bool:
        """Whether the arguments have begun."""
        return self._begun or bool(self._held)

    def write(self, piece: str) -> None:
        """Add to the arguments."""
        if self._begun:
            self._output.argument(piece)
            return
        self._held.append(piece)
        self.begin_when_complete()

    def begin_when_complete(self) -> None:
        """Begin the call, if both its name and the beginning of its arguments are known."""
        if self.name is not None and self._held and not self._begun:
            self._begun = True
            self._output.begin(self.name, self.call_id, self._held)

    def end(self) -> None:
        """End the call; its format is complete."""
        self._output.end()

"""Assembles tool calls from their fragments."""

import contextlib
import json
import uuid
from typing import Any

from llama_vision.core.events import Event, ToolCallDelta
from llama_vision.dialects.chat_completions.wire import WireFunction, WireToolCall


class ToolCallAssembler:
    """Finds the call that a fragment belongs to, and gives every call one id, one name and its index.

    A host may leave the index out, or send 0 for every call with a new id each time (litellm#14587, ollama#7881).
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_wire_index: dict[int, int] = {}
        self._ids: list[str] = []
        self._wire_ids: list[str | None] = []  # as received: missing, or the same for two calls
        self._empty: set[int] = set()  # calls without arguments so far
        self._quoted: dict[int, str] = {}  # arguments that are JSON inside a JSON string, so far

    def add_fragment(self, wire: WireToolCall, position: int, num_fragments: int) -> ToolCallDelta | None:
        """Add one fragment of a stream, the `position`th of its chunk; None where it is empty."""
        function = wire.function or WireFunction()
        arguments = _arguments(function.arguments)
        if not (wire.id or function.name or arguments):  # Cloudflare ends its calls with an empty fragment
            return None
        index = self._find(wire, function.name, position if num_fragments > 1 else self.count - 1)
        if index is None:
            return self.start_call(wire)
        arguments = self._hold_double_encoded(index, arguments)
        return ToolCallDelta(index, None, None, arguments) if arguments else None

    def _find(self, wire: WireToolCall, name: str | None, default_index: int) -> int | None:
        """Find the index of the call that a fragment continues; None for a new one."""
        known = None if wire.index is None else self._by_wire_index.get(wire.index)
        if known is not None and (not wire.id or wire.id == self._wire_ids[known]):
            return known
        if wire.id and wire.id in self._ids:
            # An id that comes again under an index of its own and with a name belongs to two calls.
            return None if known is None and wire.index is not None and name else self._ids.index(wire.id)
        if wire.index is not None or wire.id or name or not self.count:
            return None
        return min(default_index, self.count - 1)

    def start_call(self, wire: WireToolCall) -> ToolCallDelta:
        """Start a call; in a whole body every entry is one."""
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
        self._empty.add(index)
        return ToolCallDelta(index, call_id, function.name, self._hold_double_encoded(index, arguments))

    def _hold_double_encoded(self, index: int, arguments: str) -> str:
        """Hold back arguments that begin as a JSON string: they can be decoded once they are whole."""
        if index in self._empty and arguments.strip():
            self._empty.discard(index)
            if arguments.lstrip().startswith('"'):
                self._quoted[index] = ""
        if index not in self._quoted:
            return arguments
        self._quoted[index] += arguments
        return ""

    def close(self, *, cut: bool = False) -> list[Event]:
        """Give calls without arguments the empty object they mean, and emit what was held back.

        Where the reply was `cut` at max_tokens, the arguments of the last call may just not have begun.
        """
        late = {index: "{}" for index in self._empty if not (cut and index == self.count - 1)}
        late |= {index: _decode_double_encoded(arguments) for index, arguments in self._quoted.items()}
        return [ToolCallDelta(index, None, None, late[index]) for index in sorted(late)]


def _arguments(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _decode_double_encoded(arguments: str) -> str:
    """Decode an object that was encoded twice; anything else stays as the model wrote it."""
    with contextlib.suppress(ValueError, RecursionError):
        inner: object = json.loads(arguments)
        if isinstance(inner, str) and isinstance(json.loads(inner), dict):
            return inner
    return arguments

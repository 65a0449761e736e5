"""Assembles tool calls from their fragments."""

import contextlib
import json
import uuid
from typing import Any

from llama_vision.core.errors import MalformedReplyError
from llama_vision.core.events import Event, ToolCallDelta
from llama_vision.core.surrogates import JsonSurrogateJoiner, replace_surrogates
from llama_vision.dialects.chat_completions.wire import MAX_TOOL_CALLS, WireFunction, WireToolCall


class ToolCallAssembler:
    """Finds the call that a fragment belongs to, and gives every call one id, one name and its index.

    A host may leave the index out, send 0 for every call, with a new id each time (litellm#14587, ollama#7881) or with none,
    or a new id with every fragment: only a fragment with a name begins a call. Arguments whose name never comes are an error.
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_wire_index: dict[int, int] = {}
        self._ids: dict[str, int] = {}
        self._wire_ids: list[str | None] = []  # as received: missing, or the same for two calls
        self._names: list[str] = []
        self._ends: list[str] = []  # the last fragment of the arguments
        self._renamed: int | None = None  # the call whose name came again, without arguments
        self._early: list[str] = []  # arguments that came before their name
        self._early_index: int | None = None  # as received
        self._early_id: str | None = None
        self._nameless: list[str] = []  # arguments in a whole body whose call has no name
        self._halves: list[JsonSurrogateJoiner] = []
        self._empty: set[int] = set()  # calls without arguments so far
        self._quoted: dict[
            int, list[str]
        ] = {}  # arguments so far that are JSON inside a JSON string, or null

    def add_fragment(self, wire: WireToolCall, position: int, num_fragments: int) -> ToolCallDelta | None:
        """Add one fragment of a stream, the `position`th of its chunk; None where it adds nothing."""
        function = wire.function or WireFunction()
        name, arguments, wire_id = function.name, _arguments(function.arguments), wire.id and _wire_id(wire)
        if not (wire_id or name or arguments):  # Cloudflare ends its calls with an empty fragment
            return None
        if not name and self._precedes_name(wire.index, wire_id, arguments):
            self._early_id = self._early_id or wire_id
            if arguments:  # an id alone is no call
                self._early.append(arguments)
                self._early_index = wire.index
            return None
        index = self._find(wire, wire_id, name, position if num_fragments > 1 else self.count - 1)
        if index is None:
            return self.start_call(wire)
        if (name or index == self._renamed) and self._is_second_call(index, wire_id, name, arguments):
            return self._start(wire, name or self._names[index], arguments)
        return self._continue(index, name, arguments)

    def _precedes_name(self, wire_index: int | None, wire_id: str | None, arguments: str) -> bool:
        """Tell whether a fragment without a name belongs to a call whose name has not come yet."""
        if not self.count or (self._early and wire_index == self._early_index):
            return True
        if wire_index is None or wire_index in self._by_wire_index or wire_id in self._ids:
            return False
        # A new index and a new object, when the last call has a whole one.
        return arguments.lstrip().startswith("{") and self._ends[-1].rstrip().endswith("}")

    def _find(
        self, wire: WireToolCall, wire_id: str | None, name: str | None, default_index: int
    ) -> int | None:
        """Find the index of the call that a fragment continues; None for a new one."""
        known = None if wire.index is None else self._by_wire_index.get(wire.index)
        if known is not None and (not wire_id or wire_id == self._wire_ids[known]):
            return known
        if wire_id and wire_id in self._ids:
            # An id that comes again under an index of its own and with a name belongs to two calls.
            return None if known is None and wire.index is not None and name else self._ids[wire_id]
        if name:
            return None
        return min(default_index, self.count - 1) if known is None else known

    def _is_second_call(self, index: int, wire_id: str | None, name: str | None, arguments: str) -> bool:
        """Tell whether a name where a call is known already begins another call, or is repeated or continued."""
        self._renamed = None
        if index in self._empty:
            return False
        if name and name != self._names[index]:
            return True
        if wire_id:
            return False
        if not arguments:
            self._renamed = index
        return arguments.lstrip().startswith("{") and self._ends[index].rstrip().endswith("}")

    def start_call(self, wire: WireToolCall) -> ToolCallDelta | None:
        """Start a call; in a whole body every entry is one, but for those without a name."""
        function = wire.function or WireFunction()
        arguments = _arguments(function.arguments)
        if function.name:
            return self._start(wire, function.name, arguments)
        if arguments:
            self._nameless.append(arguments)
        return None

    def _start(self, wire: WireToolCall, name: str, arguments: str) -> ToolCallDelta:
        index, wire_id = self.count, _wire_id(wire) or self._early_id
        name = replace_surrogates(name)
        self.count += 1
        if self.count > MAX_TOOL_CALLS:
            raise MalformedReplyError(f"The provider's reply has more than {MAX_TOOL_CALLS:,} tool calls.")
        # Calls without an id (Cloudflare), or with one twice, could not be told apart when their results come back.
        call_id = wire_id if wire_id and wire_id not in self._ids else f"call_{uuid.uuid4().hex[:24]}"
        self._ids[call_id] = index
        self._wire_ids.append(wire_id)
        self._names.append(name)
        self._ends.append("")
        self._halves.append(JsonSurrogateJoiner())
        if wire.index is not None:
            self._by_wire_index[wire.index] = index
        self._empty.add(index)
        arguments = "".join([*self._early, arguments])
        self._early, self._early_id = [], None
        return ToolCallDelta(index, call_id, name, self._add_arguments(index, arguments))

    def _continue(self, index: int, name: str | None, arguments: str) -> ToolCallDelta | None:
        """Add to a call. Its name may come in pieces until its arguments begin, and may be repeated."""
        piece = (
            replace_surrogates(name).removeprefix(self._names[index])
            if name and index in self._empty
            else None
        )
        if piece:
            self._names[index] += piece
        arguments = self._add_arguments(index, arguments)
        return ToolCallDelta(index, None, piece or None, arguments) if piece or arguments else None

    def _add_arguments(self, index: int, arguments: str) -> str:
        """Hold back arguments that begin as a JSON string or as `null`: they can be decoded once they are whole."""
        arguments = self._halves[index].feed(arguments)
        self._ends[index] = arguments or self._ends[index]
        if index in self._empty and arguments.strip():
            self._empty.discard(index)
            if arguments.lstrip()[0] in '"nN':
                self._quoted[index] = []
        if index not in self._quoted:
            return arguments
        self._quoted[index].append(arguments)
        return ""

    def close(self, *, cut: bool = False) -> list[Event]:
        """Give calls without arguments the empty object they mean, and emit what was held back.

        Where the reply was `cut` at max_tokens, the arguments of the last call may just not have begun.

        Raises:
            MalformedReplyError: A call has arguments and no name.
        """
        if nameless := [*self._early, *self._nameless]:
            quoted = "".join(nameless)[:200]
            raise MalformedReplyError(f"The model called a tool without naming it, with {quoted!r}.")
        late = {index: "{}" for index in self._empty if not (cut and index == self.count - 1)}
        late |= {index: held for index, halves in enumerate(self._halves) if (held := halves.close())}
        for index, quoted in self._quoted.items():
            halves = self._halves[index]  # once more: an escape may have been encoded twice
            late[index] = (
                halves.feed(_decode_double_encoded("".join(quoted) + late.get(index, ""))) + halves.close()
            )
        return [ToolCallDelta(index, None, None, late[index]) for index in sorted(late)]


def _wire_id(wire: WireToolCall) -> str | None:
    """Read the id; some gateways write the text `null` where it is missing."""
    return None if wire.id in (None, "", "null", "None") else replace_surrogates(wire.id)


def _arguments(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _decode_double_encoded(arguments: str) -> str:
    """Decode an object that was encoded twice, or an empty one in other words; anything else stays as the model wrote it."""
    with contextlib.suppress(ValueError, RecursionError):
        inner: object = json.loads(arguments) if arguments.strip() != "None" else None
        if inner in (None, "", "null"):
            return "{}"
        if isinstance(inner, str) and isinstance(json.loads(inner), dict):
            return inner
    return arguments

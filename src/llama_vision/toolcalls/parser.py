"""The machine that tells calls from words while the text comes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_vision.core.events import TextDelta
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import ReplyBuilder
from llama_vision.core.request import Tool
from llama_vision.toolcalls.emitter import Delta, DeltaEmitter
from llama_vision.toolcalls.formats import FUNCTION_TAG, PYTHON_TAG, CallFormats
from llama_vision.toolcalls.json_format import FIRST_KEYS
from llama_vision.toolcalls.scanner import SPACE, WORD, IncrementalScanner, NotACall, Scan
from llama_vision.toolcalls.skip import skip_structure
from llama_vision.toolcalls.special_tokens import TrailingSpecialTokenFilter
from llama_vision.toolcalls.tool_names import ToolNames


def _begun(token: str) -> str:
    """Make a pattern of a text, or of as much of it as the end leaves room for."""
    return "".join(f"(?:\\Z|{re.escape(char)}" for char in token) + ")" * len(token)


# Where a call may begin. Whether one does is told by `Envelopes`; what is ruled out here costs next to nothing. A piece of
# text that ends too early to tell counts.
_OPENING = re.compile(
    r"""\{(?=\s*(?:["']|\Z))|\[(?=\s*(?:[\w\[]|\Z|\{\s*(?:["']|\Z)))|`(?=``|`?\Z)|"""
    + "|".join(f"<(?={_begun(tag[1:])})" for tag in (PYTHON_TAG, FUNCTION_TAG))
)
# What is certainly none: an object with another first key, a list in a list, a name in a list without arguments.
_NOT_A_CALL = re.compile(
    rf"""\{{{SPACE.pattern}(["'])(?!(?:{"|".join(sorted(FIRST_KEYS))})\1)[^"'\\\x00-\x1f]*\1"""
    rf"""|\[{SPACE.pattern}(?:\[|\w[\w.+\-]*[ \t\r\n]*[^\w.+\-( \t\r\n])"""
)
_SEPARATORS = re.compile(r"[ \t\r\n;,]*")
_ALL = re.compile(r"(?s:.*)")


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """A text without the calls in it.

    Attributes:
        content: The words; None where there are none.
        tool_calls: The calls, in order.

    """

    content: str | None
    tool_calls: tuple[ToolCall, ...]


class ToolCallParser:
    """Reads one reply as it comes. See the room's docstring for what is a call."""

    def __init__(self, tools: Sequence[Tool | Mapping[str, Any]]) -> None:
        """Begin to read.

        Args:
            tools: Those on offer, as `Tool`s or as OpenAI spells them. Without any, all text is words.

        """
        self._offered = ToolNames(tools)
        self._stop_tokens = TrailingSpecialTokenFilter()
        self._source = IncrementalScanner()
        self._output = DeltaEmitter()
        self._envelopes = CallFormats(self._source, self._offered, self._output)
        self._in_text = False
        self._steps = self._run()

    @property
    def unfinished(self) -> frozenset[int]:
        """The indices of calls that have begun and not ended.

        Once the text is at its end, these are no calls: they were cut off or went wrong, and are in the text, whole.
        """
        return frozenset(self._output.unfinished)

    def feed(self, delta: str) -> list[Delta]:
        """Take in the next words.

        Args:
            delta: As the model wrote them.

        Returns:
            Words that are no part of a call, and pieces of calls.

        """
        if not self._offered.names:
            return [TextDelta(delta)] if delta else []
        text = self._stop_tokens.feed(delta)
        if not text:
            return []
        if self._in_text and _OPENING.search(text) is None:
            return [TextDelta(text)]
        self._source.add(text)
        next(self._steps)
        return self._output.drain()

    def close(self, *, cut: bool = False) -> list[Delta]:
        """Say that no more comes.

        Args:
            cut: Whether the reply was cut off, so that code that reaches to its end is not all of it.

        Returns:
            What was held back.

        """
        if rest := self._stop_tokens.close():
            self._source.add(rest)
            next(self._steps)
        self._source.closed = True
        self._source.cut = cut
        next(self._steps, None)  # to the end: nothing is left to wait for
        return self._output.drain()

    def _run(self) -> Scan[None]:
        source = self._source
        yield from self._read_between_calls(first=True)
        while True:
            self._in_text = True
            if not (yield from source.peek()):
                return
            self._in_text = False
            opening = _OPENING.search(source.text, source.position)
            end = opening.start() if opening else len(source.text)
            self._output.text(source.take(end - source.position))
            if opening and _NOT_A_CALL.match(source.text, source.position):
                yield from skip_structure(source, self._output.text)
            elif opening:
                source.mark()
                if (yield from self._is_call()):
                    yield from self._read_between_calls(first=False)

    def _read_between_calls(self, *, first: bool) -> Scan[None]:
        """Read what may stand before, between and after calls, and the calls that follow it."""
        source, envelopes = self._source, self._envelopes
        while True:
            source.mark()
            following = yield from (source.space() if first else self._read_separators())
            if following == "]" and envelopes.in_list:
                source.position += 1
                envelopes.in_list = False
            elif following and (following in "{[<`" or (envelopes.in_chain and WORD.fullmatch(following))):
                if not (yield from self._is_call(ends_fence=following == "`" and envelopes.in_fence)):
                    envelopes.resume_text()
                    return
                first = False
            else:
                if first or following:
                    self._output.text(source.recorded_text())
                source.forget()
                envelopes.resume_text()
                return

    def _read_separators(self) -> Scan[str]:
        source = self._source
        while True:
            source.take_match(_SEPARATORS)
            if source.position < len(source.text) or not (yield from source.peek()):
                return source.text[source.position : source.position + 1]

    def _is_call(self, *, ends_fence: bool = False) -> Scan[bool]:
        """Read a call, or the end of a fence. Give what turns out to be neither as words."""
        self._envelopes.prefix_length = 0
        try:
            yield from (self._envelopes.read_end_of_fence() if ends_fence else self._envelopes.read())
        except NotACall:
            yield from self._emit_as_text()
            return False
        self._source.forget()
        return True

    def _emit_as_text(self) -> Scan[None]:
        source, write = self._source, self._output.text
        structure = source.structure
        source.rewind()
        if self._envelopes.rest_is_text:
            while (yield from source.peek()):
                write(source.take_match(_ALL))
        elif structure is None:
            write(source.take(max(1, self._envelopes.prefix_length)))
        else:
            write(source.take(structure))
            yield from skip_structure(source, write)


def parse_tool_calls(text: str, tools: Sequence[Tool | Mapping[str, Any]]) -> ParsedOutput:
    """Find the calls in a text.

    Args:
        text: All that a model wrote.
        tools: Those on offer, as `Tool`s or as OpenAI spells them.

    Returns:
        The words and the calls.

    """
    parser = ToolCallParser(tools)
    reply = ReplyBuilder()
    for delta in [*parser.feed(text), *parser.close()]:
        reply.add(delta)
    calls = tuple(call for index, call in enumerate(reply.tool_calls) if index not in parser.unfinished)
    return ParsedOutput(reply.text or None, calls)

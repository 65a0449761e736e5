"""The incremental parser that separates tool calls from text."""

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
from llama_vision.toolcalls.special_tokens import SpecialTokenFilter
from llama_vision.toolcalls.tool_names import ToolNames


def _token_or_prefix(token: str) -> str:
    """Make a pattern of a token, or of a prefix of it at the end of the text."""
    return "".join(f"(?:\\Z|{re.escape(char)}" for char in token) + ")" * len(token)


# Where a call may begin; a prefix of an opening at the end of the text counts. `CallFormats` decides whether one does: what is
# ruled out here costs next to nothing.
_OPENING = re.compile(
    r"""\{(?=\s*(?:["']|\Z))|\[(?=\s*(?:[\w\[]|\Z|\{\s*(?:["']|\Z)))|`(?=``|`?\Z)|"""
    + "|".join(f"<(?={_token_or_prefix(tag[1:])})" for tag in (PYTHON_TAG, FUNCTION_TAG))
)
# Certainly no call: an object with another first key, a list in a list, a name in a list without arguments.
_NOT_A_CALL = re.compile(
    rf"""\{{{SPACE.pattern}(["'])(?!(?:{"|".join(sorted(FIRST_KEYS))})\1)[^"'\\\x00-\x1f]*\1"""
    rf"""|\[{SPACE.pattern}(?:\[|\w[\w.+\-]*[ \t\r\n]*[^\w.+\-( \t\r\n])"""
)
_SEPARATORS = re.compile(r"[ \t\r\n;,]*")


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """A text without the tool calls in it, None where there is none, and the calls in order."""

    content: str | None
    tool_calls: tuple[ToolCall, ...]


class ToolCallParser:
    """Parses one reply incrementally. The docstring of the package says what is a call."""

    def __init__(self, tools: Sequence[Tool | Mapping[str, Any]]) -> None:
        """Begin a reply to a request with these tools, as `Tool`s or in OpenAI's form. Without any, all is text."""
        self._tool_names = ToolNames(tools)
        self._stop_tokens = SpecialTokenFilter()
        self._source = IncrementalScanner()
        self._output = DeltaEmitter()
        self._formats = CallFormats(self._source, self._tool_names, self._output)
        self._in_text = False
        self._steps = self._run()

    @property
    def unfinished(self) -> frozenset[int]:
        """Indices of calls that have begun and not ended; those at the end of the reply are no calls, but text, whole."""
        return frozenset(self._output.unfinished)

    def feed(self, delta: str) -> list[Delta]:
        """Parse the next piece of text.

        Args:
            delta: The piece.

        Returns:
            Text that is no part of a call, and fragments of calls.
        """
        if not self._tool_names.names:
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
        """End the reply.

        Args:
            cut: Whether the reply was cut off, so that code at its end is incomplete.

        Returns:
            What was held back.
        """
        if held := self._stop_tokens.close():
            self._source.add(held)
            next(self._steps)
        self._source.closed = True
        self._source.cut = cut
        next(self._steps, None)  # runs to the end: a closed scanner never waits
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
        """Read what may stand before, between and after calls, and the calls after it."""
        source, formats = self._source, self._formats
        while True:
            source.mark()
            yield from source.read_while(SPACE if first else _SEPARATORS)
            following = source.buffered_char
            if following == "]" and formats.in_list:
                source.position += 1
                formats.in_list = False
            elif following and (following in "{[<`" or (formats.in_chain and WORD.fullmatch(following))):
                if not (yield from self._is_call(ends_fence=following == "`" and formats.in_fence)):
                    formats.resume_text()
                    return
                first = False
            else:
                if first or following:
                    self._output.text(source.recorded_text())
                source.forget()
                formats.resume_text()
                return

    def _is_call(self, *, ends_fence: bool = False) -> Scan[bool]:
        """Read a call, or the end of a fence; emit anything else as text."""
        self._formats.prefix_length = 0
        try:
            yield from (self._formats.read_end_of_fence() if ends_fence else self._formats.read())
        except NotACall:
            yield from self._emit_as_text()
            return False
        self._source.forget()
        return True

    def _emit_as_text(self) -> Scan[None]:
        source, write = self._source, self._output.text
        structure = source.structure
        source.rewind()
        if self._formats.rest_is_text:
            while (yield from source.peek()):
                write(source.take(len(source.text)))
        elif structure is None:
            write(source.take(max(1, self._formats.prefix_length)))
        else:
            write(source.take(structure))
            yield from skip_structure(source, write)


def parse_tool_calls(text: str, tools: Sequence[Tool | Mapping[str, Any]]) -> ParsedOutput:
    """Separate the tool calls in a whole reply from its text.

    Args:
        text: The whole text that a model wrote.
        tools: Those of the request, as `Tool`s or in OpenAI's form.

    Returns:
        The text and the calls.
    """
    parser = ToolCallParser(tools)
    reply = ReplyBuilder()
    for delta in [*parser.feed(text), *parser.close()]:
        reply.add(delta)
    calls = tuple(call for index, call in enumerate(reply.tool_calls) if index not in parser.unfinished)
    return ParsedOutput(reply.text or None, calls)

"""The machine that tells calls from words while the text comes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_vision.core.events import TextDelta
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import ReplyBuilder
from llama_vision.core.request import Tool
from llama_vision.toolcalls.envelopes import FUNCTION_TAG, PYTHON_TAG, Envelopes
from llama_vision.toolcalls.json_call import FIRST_KEYS
from llama_vision.toolcalls.offered import Offered
from llama_vision.toolcalls.output import Delta, Output
from llama_vision.toolcalls.source import SPACE, WORD, Reading, Refuted, TextSource
from llama_vision.toolcalls.stop_tokens import StopTokenFilter
from llama_vision.toolcalls.structure import pass_structure


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
_NO_CALL = re.compile(
    rf"""\{{{SPACE.pattern}(["'])(?!(?:{"|".join(sorted(FIRST_KEYS))})\1)[^"'\\\x00-\x1f]*\1"""
    rf"""|\[{SPACE.pattern}(?:\[|\w[\w.+\-]*[ \t\r\n]*[^\w.+\-( \t\r\n])"""
)
_SEPARATORS = re.compile(r"[ \t\r\n;,]*")
_ALL = re.compile(r"(?s:.*)")


@dataclass(frozen=True, slots=True)
class ParsedText:
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
        self._offered = Offered(tools)
        self._stop_tokens = StopTokenFilter()
        self._source = TextSource()
        self._output = Output()
        self._envelopes = Envelopes(self._source, self._offered, self._output)
        self._among_words = False
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
        if self._among_words and _OPENING.search(text) is None:
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

    def _run(self) -> Reading[None]:
        source = self._source
        yield from self._read_gap(first=True)
        while True:
            self._among_words = True
            if not (yield from source.peek()):
                return
            self._among_words = False
            opening = _OPENING.search(source.text, source.position)
            end = opening.start() if opening else len(source.text)
            self._output.text(source.take(end - source.position))
            if opening and _NO_CALL.match(source.text, source.position):
                yield from pass_structure(source, self._output.text)
            elif opening:
                source.mark()
                if (yield from self._is_call()):
                    yield from self._read_gap(first=False)

    def _read_gap(self, *, first: bool) -> Reading[None]:
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
                    envelopes.go_on_with_words()
                    return
                first = False
            else:
                if first or following:
                    self._output.text(source.taken())
                source.forget()
                envelopes.go_on_with_words()
                return

    def _read_separators(self) -> Reading[str]:
        source = self._source
        while True:
            source.take_match(_SEPARATORS)
            if source.position < len(source.text) or not (yield from source.peek()):
                return source.text[source.position : source.position + 1]

    def _is_call(self, *, ends_fence: bool = False) -> Reading[bool]:
        """Read a call, or the end of a fence. Give what turns out to be neither as words."""
        self._envelopes.wrapping = 0
        try:
            yield from (self._envelopes.read_end_of_fence() if ends_fence else self._envelopes.read())
        except Refuted:
            yield from self._pass_as_words()
            return False
        self._source.forget()
        return True

    def _pass_as_words(self) -> Reading[None]:
        source, write = self._source, self._output.text
        structure = source.structure
        source.rewind()
        if self._envelopes.rest_is_text:
            while (yield from source.peek()):
                write(source.take_match(_ALL))
        elif structure is None:
            write(source.take(max(1, self._envelopes.wrapping)))
        else:
            write(source.take(structure))
            yield from pass_structure(source, write)


def parse_tool_calls(text: str, tools: Sequence[Tool | Mapping[str, Any]]) -> ParsedText:
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
    return ParsedText(reply.text or None, calls)

"""The formats of tool calls: behind a tag, in a Markdown fence, in a list, or bare."""

import json

from llama_vision.toolcalls.emitter import DeltaEmitter, PendingCall
from llama_vision.toolcalls.json_format import read_json_call, read_null
from llama_vision.toolcalls.literals import read_object_body
from llama_vision.toolcalls.pythonic_format import read_call_list, read_dot_call
from llama_vision.toolcalls.scanner import IncrementalScanner, NotACall, Scan
from llama_vision.toolcalls.special_tokens import STOP_TOKENS
from llama_vision.toolcalls.tool_names import ToolNames

PYTHON_TAG = "<|python_tag|>"
FUNCTION_TAG = "<function="
_END_OF_FUNCTION = "</function>"
_FENCE = "```"
_MAX_LANGUAGE = 20


class CallFormats:
    """Reads calls in all their formats.

    Attributes:
        in_list: Whether the list that holds the last call is still open.
        in_fence: Whether the fence that holds the last call is still open.
        in_chain: Whether another `name.call(...)` may follow.
        in_code_fence: Whether a fence without a call is open.
        prefix_length: Number of recorded characters before the call.
        rest_is_text: Whether all that follows is text, because it is code and no tool takes code.
    """

    def __init__(self, source: IncrementalScanner, tool_names: ToolNames, output: DeltaEmitter) -> None:
        self._source = source
        self._tool_names = tool_names
        self._output = output
        self.in_list = False
        self.in_fence = False
        self.in_chain = False
        self.in_code_fence = False
        self.prefix_length = 0
        self.rest_is_text = False

    def read(self) -> Scan[None]:
        """Read one call, or a whole Python list of them, with its format, or raise `NotACall`."""
        source = self._source
        fenced, tagged_to = False, None  # where in the record the last tag ends
        while (following := (yield from self._next())) in ("<", "`"):
            if following == "`":
                yield from self._read_fence(follows_fence=fenced)
                fenced = True
                continue
            token = yield from source.one_of((PYTHON_TAG, FUNCTION_TAG, *STOP_TOKENS))
            if token == PYTHON_TAG:
                tagged_to = source.num_recorded
            elif token == FUNCTION_TAG:
                source.structure = self.prefix_length
                yield from self._read_function()
                break
        else:
            yield from self._read_after_tag(following, tagged_to)
        if fenced:
            self.in_fence, self.in_code_fence = True, False

    def _next(self) -> Scan[str]:
        following = yield from self._source.space()
        self.prefix_length = self._source.num_recorded
        return following

    def _read_fence(self, *, follows_fence: bool) -> Scan[None]:
        """Read the backticks before a call; where no call follows, they open a code block, and the next ones close it."""
        if follows_fence:
            raise NotACall
        yield from self._source.one_of((_FENCE,))
        self.prefix_length = self._source.num_recorded
        self.in_code_fence = not self.in_code_fence
        if not self.in_code_fence:
            raise NotACall
        yield from self._source.word(limit=_MAX_LANGUAGE)

    def read_end_of_fence(self) -> Scan[None]:
        """Read the backticks after a call."""
        yield from self._source.one_of((_FENCE,))
        self.in_fence = False

    def resume_text(self) -> None:
        """Return to text: an open fence becomes a code block's, and a chain of calls ends."""
        self.in_chain = False
        self.in_fence, self.in_code_fence = False, self.in_fence or self.in_code_fence

    def _read_after_tag(self, following: str, tagged_to: int | None) -> Scan[None]:
        source, code_tool, begun = self._source, self._tool_names.code_tool, self._output.count
        try:
            yield from self._read_untagged(following, tagged=tagged_to is not None)
        except NotACall:
            if tagged_to is None or begun < self._output.count:
                raise
            cut_off = source.structure is not None and source.closed and not source.buffered_char
            if code_tool is None or cut_off or not following:
                self.rest_is_text = source.structure is None
                raise
            yield from self._read_code(tagged_to, *code_tool)

    def _read_untagged(self, following: str, *, tagged: bool) -> Scan[None]:
        source, in_chain = self._source, self.in_chain
        self.in_chain = False
        if following == "{":
            yield from self._read_object()
        elif following == "[":
            yield from self._read_list()
        elif following and (tagged or in_chain):
            if not tagged:
                source.structure = self.prefix_length
            yield from read_dot_call(source, self._tool_names, self._output)
            self.in_chain = True
        else:
            raise NotACall

    def _read_object(self) -> Scan[None]:
        source = self._source
        start = source.num_recorded
        source.position += 1
        if (yield from source.space()) not in ('"', "'"):
            raise NotACall
        source.structure = start
        yield from read_json_call(source, self._tool_names, PendingCall(self._output))

    def _read_list(self) -> Scan[None]:
        source = self._source
        start = source.num_recorded
        source.position += 1
        following = yield from source.space()
        if following == "{":
            yield from self._read_object()
            self.in_list = True
        elif following == "[":
            source.structure = start
            raise NotACall
        elif following == "_" or following.isalnum():
            source.structure = start
            yield from read_call_list(source, self._tool_names, self._output)
        else:
            raise NotACall

    def _read_function(self) -> Scan[None]:
        """Read `<function=name>{...}</function>` from its name on. Meta's own parser does without the end tag.

        Llamas at Groq left the first `>` out, or wrote it behind the object (its `failed_generation`s).
        """
        source = self._source
        name = yield from source.word(prefixes=self._tool_names.prefixes)
        if name not in self._tool_names.names:
            raise NotACall
        call = PendingCall(self._output, name)
        following = yield from source.space()
        if following != "{":
            yield from source.expect(">")
            following = yield from source.space()
        if following == "{":
            source.position += 1
            call.write("{")
            yield from read_object_body(source, call.write)
            if (yield from source.space()) == ">":
                source.position += 1
        elif following:
            if following != "<":
                yield from read_null(source)
            call.write("{")
        else:
            raise NotACall
        if (yield from source.space()):
            yield from source.one_of((_END_OF_FUNCTION, *STOP_TOKENS))
        call.end()

    def _read_code(self, start: int, name: str, argument: str) -> Scan[None]:
        """Read all that follows as code, from the beginning of the record."""
        source = self._source
        source.rewind()
        source.mark()
        source.take(start)
        call = PendingCall(self._output, name)
        call.write(f'{{{json.dumps(argument)}: "')
        while (yield from source.peek()):
            call.write(json.dumps(source.take(len(source.text)), ensure_ascii=False)[1:-1])
        if source.cut:
            self.rest_is_text = True
            raise NotACall
        call.write('"')
        call.end()

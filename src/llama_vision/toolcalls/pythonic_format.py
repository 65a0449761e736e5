"""Calls as Python has them: `[f(a="x", b=1), g()]`, and `f.call(a="x")`."""

import json
from collections.abc import Container

from llama_vision.toolcalls.emitter import DeltaEmitter, PendingCall
from llama_vision.toolcalls.literals import read_value
from llama_vision.toolcalls.scanner import WORD, IncrementalScanner, NotACall, Scan
from llama_vision.toolcalls.tool_names import DOT_CALL, ToolNames

_MAX_NAME = 200
"""Characters of an argument's name, or of a name that is not on offer."""


def read_call_list(source: IncrementalScanner, offered: ToolNames, output: DeltaEmitter) -> Scan[None]:
    """Read a list of calls from its first name on to behind its closing bracket.

    Each call that another one, or the bracket, follows is complete, and what comes before that is taken out of the source's
    record.

    Args:
        source: Stands at the name.
        offered: Which names are calls.
        output: Takes the calls.

    Raises:
        Refuted: It is no such list, or no longer; what is in the record is not part of a call.

    """
    name = yield from read_prefixed(source, offered.prefixes)
    yield from source.expect("(")
    while name in offered.names:
        call = PendingCall(output, name)
        yield from _read_keyword_arguments(source, call)
        following = yield from source.space()
        end = source.num_recorded
        source.position += 1
        if following == ",":
            following = yield from source.space()
            if following == "]":
                source.position += 1
            else:
                source.mark_structure(source.num_recorded)
                name = yield from source.word(_MAX_NAME)
                yield from source.expect("(")
        elif following != "]":
            raise NotACall
        call.end()
        source.drop(end)
        if following == "]":
            return
    raise NotACall


def read_dot_call(source: IncrementalScanner, offered: ToolNames, output: DeltaEmitter) -> Scan[None]:
    """Read `name.call(key=value, ...)`, which is documented, or `name(key=value, ...)`, which Llama 3.3 writes too.

    https://github.com/meta-llama/llama-models/issues/266

    Raises:
        Refuted: It is something else.

    """
    written = yield from read_prefixed(source, offered.tagged_prefixes)
    name = written if written in offered.names else written.removesuffix(DOT_CALL)
    if name not in offered.names:
        raise NotACall
    yield from source.expect("(")
    call = PendingCall(output, name)
    yield from _read_keyword_arguments(source, call)
    call.end()


def read_prefixed(source: IncrementalScanner, prefixes: Container[str]) -> Scan[str]:
    """Read a word.

    Raises:
        Refuted: It is not among the prefixes; said at the first letter that none of them goes on with.

    """
    word = ""
    while True:
        word += source.take_match(WORD)
        if word not in prefixes:
            raise NotACall
        if source.position < len(source.text) or not (yield from source.peek()):
            return word


def _read_keyword_arguments(source: IncrementalScanner, call: PendingCall) -> Scan[None]:
    """Read arguments from behind the opening parenthesis to behind the closing one."""
    names: set[str] = set()
    while (yield from source.space()) != ")":
        name = yield from source.word(_MAX_NAME)
        yield from source.expect("=")
        if not name.isidentifier() or name in names:
            raise NotACall
        call.write(f"{', ' if names else '{'}{json.dumps(name, ensure_ascii=False)}: ")
        names.add(name)
        yield from source.space()
        yield from read_value(source, call.write, python=True)
        following = yield from source.space()
        if following == ",":
            source.position += 1
        elif following != ")":
            raise NotACall
    source.position += 1
    if not names:
        call.write("{")

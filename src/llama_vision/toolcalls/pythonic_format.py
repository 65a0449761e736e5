"""Calls in Python syntax: `[f(a="x", b=1), g()]`, and `f.call(a="x")`."""

import json

from llama_vision.toolcalls.emitter import DeltaEmitter, PendingCall
from llama_vision.toolcalls.literals import read_value
from llama_vision.toolcalls.scanner import IncrementalScanner, NotACall, Scan
from llama_vision.toolcalls.tool_names import DOT_CALL, ToolNames


def read_call_list(source: IncrementalScanner, tool_names: ToolNames, output: DeltaEmitter) -> Scan[None]:
    """Read a list of calls from its first name on to its closing bracket.

    A call that is followed by another one, or by the bracket, is complete, and is dropped from the source's record. `NotACall`
    is raised where the list goes wrong; what is in the record then is not part of a call.
    """
    name = yield from source.word(prefixes=tool_names.prefixes)
    yield from source.expect("(")
    while name in tool_names.names:
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
                source.structure = source.num_recorded
                name = yield from source.word()
                yield from source.expect("(")
        elif following != "]":
            raise NotACall
        call.end()
        source.drop(end)
        if following == "]":
            return
    raise NotACall


def read_dot_call(source: IncrementalScanner, tool_names: ToolNames, output: DeltaEmitter) -> Scan[None]:
    """Read `name.call(key=value, ...)`, which is documented, or `name(key=value, ...)`, or raise `NotACall`.

    Llama 3.3 writes the latter too: https://github.com/meta-llama/llama-models/issues/266.
    """
    written = yield from source.word(prefixes=tool_names.tagged_prefixes)
    name = written if written in tool_names.names else written.removesuffix(DOT_CALL)
    if name not in tool_names.names:
        raise NotACall
    yield from source.expect("(")
    call = PendingCall(output, name)
    yield from _read_keyword_arguments(source, call)
    call.end()


def _read_keyword_arguments(source: IncrementalScanner, call: PendingCall) -> Scan[None]:
    """Read arguments from behind the opening parenthesis to behind the closing one."""
    names: set[str] = set()
    while (yield from source.space()) != ")":
        name = yield from source.word()
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

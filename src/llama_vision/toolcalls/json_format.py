"""Calls as JSON objects: `{"name": ..., "parameters": {...}}`."""

import json
from collections.abc import Container

from llama_vision.toolcalls.emitter import PendingCall
from llama_vision.toolcalls.literals import read_object_body, read_string, read_value, take_plain_string
from llama_vision.toolcalls.scanner import IncrementalScanner, NotACall, Scan, Write, discard
from llama_vision.toolcalls.tool_names import ToolNames, prefixes

_ARGUMENTS = frozenset({"parameters", "arguments"})
FIRST_KEYS = frozenset({"type", "id", "name", "function"}) | _ARGUMENTS
_KEY_PREFIXES = prefixes(FIRST_KEYS)
_MAX_KEY = max(map(len, FIRST_KEYS))
_FUNCTION = prefixes({"function"})
_NULL = prefixes({"null", "None"})
_MAX_ESCAPE = len("\\ud83d\\ude00")


def read_json_call(source: IncrementalScanner, tool_names: ToolNames, call: PendingCall) -> Scan[None]:
    """Read a call from behind its opening brace to its closing one, or raise `NotACall`."""
    yield from _read_object(source, tool_names, call, nested=False)
    if not (call.name and call.has_arguments):
        raise NotACall
    call.end()


def _read_object(
    source: IncrementalScanner, tool_names: ToolNames, call: PendingCall, *, nested: bool
) -> Scan[None]:
    key = ""
    while True:
        if (yield from source.space()) not in ('"', "'"):
            raise NotACall
        if not key:  # only the first is checked early, so that other JSON is not held back for long
            key = yield from _read_one_of(source, _KEY_PREFIXES, _MAX_KEY)
        else:
            key = yield from _read_string(source)
        yield from source.expect(":")
        yield from _read_field(source, tool_names, call, key, nested=nested)
        following = yield from source.space()
        source.position += 1
        if following == "}":
            return
        if following != ",":
            raise NotACall


def _read_field(
    source: IncrementalScanner, tool_names: ToolNames, call: PendingCall, key: str, *, nested: bool
) -> Scan[None]:
    following = yield from source.space()
    quoted = following in ('"', "'")
    if key in _ARGUMENTS:
        yield from _read_arguments(source, call, following)
    elif key == "function" and following == "{" and not nested:
        source.position += 1
        yield from _read_object(source, tool_names, call, nested=True)
    elif key in ("name", "function"):
        if not quoted or call.name is not None:
            raise NotACall
        call.name = yield from _read_one_of(source, tool_names.prefixes, tool_names.max_length)
        if call.name not in tool_names.names:
            raise NotACall
        call.begin_when_complete()
    elif key == "type" and not nested:
        if not quoted or (yield from _read_one_of(source, _FUNCTION, len("function"))) != "function":
            raise NotACall
    elif key == "id" and quoted:
        call.call_id = yield from _read_string(source)
    elif key == "description" and not call.has_arguments:  # a definition, read back
        raise NotACall
    else:
        yield from read_value(source, discard, python=False)


def _read_arguments(source: IncrementalScanner, call: PendingCall, following: str) -> Scan[None]:
    if call.has_arguments:
        raise NotACall
    if following == "{":
        source.position += 1
        call.write("{")
        yield from read_object_body(source, call.write)
    elif following in ('"', "'"):  # an object encoded twice
        encoded = yield from _read_quoted(source, _begins_object())
        call.write("{" + _decode_object_string(json.loads(encoded)))
    else:
        yield from read_null(source)
        call.write("{")


def read_null(source: IncrementalScanner) -> Scan[None]:
    """Read the null that some models write for no arguments, or raise `NotACall`."""
    if (yield from source.word(prefixes=_NULL)) not in ("null", "None"):
        raise NotACall


def _decode_object_string(encoded: str) -> str:
    """Decode the object that a string holds, without its braces."""
    inner = IncrementalScanner(encoded.strip(), closed=True)
    pieces: list[str] = []
    if inner.take(1) != "{":
        raise NotACall
    next(read_object_body(inner, pieces.append), None)  # reads to the end: a closed scanner never waits
    if inner.position < len(inner.text):
        raise NotACall
    return "".join(pieces)


def _read_string(source: IncrementalScanner) -> Scan[str]:
    if (plain := take_plain_string(source)) is not None:
        return plain
    decoded: str = json.loads((yield from _read_quoted(source, discard)))
    return decoded


def _read_one_of(source: IncrementalScanner, allowed: Container[str], max_length: int) -> Scan[str]:
    """Read a string that has to be one of those allowed, which include all prefixes, and raise `NotACall` at the first character that fits none."""
    if (plain := take_plain_string(source)) is not None:
        if plain not in allowed:
            raise NotACall
        return plain
    so_far = ""

    def check(piece: str) -> None:
        nonlocal so_far
        so_far += piece
        if len(so_far) > max_length * _MAX_ESCAPE + len('""'):
            raise NotACall
        if "\\" not in so_far and so_far.strip('"') not in allowed:
            raise NotACall

    decoded: str = json.loads((yield from _read_quoted(source, check)))
    return decoded


def _read_quoted(source: IncrementalScanner, check: Write) -> Scan[str]:
    pieces: list[str] = []

    def write(piece: str) -> None:
        check(piece)
        pieces.append(piece)

    yield from read_string(source, write, python=False)
    return "".join(pieces)


def _begins_object() -> Write:
    """Make a check that raises `NotACall` for a string that does not begin with a brace."""
    has_begun = False

    def check(piece: str) -> None:
        nonlocal has_begun
        text = piece.lstrip('" ')
        if text and not has_begun:
            has_begun = True
            if text[0] not in "{\\":  # an escape is decoded once the string is complete
                raise NotACall

    return check

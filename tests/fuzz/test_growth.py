"""Much of one thing takes a time and a memory that grow with its length alone."""

import json
import sys
import time
import tracemalloc

import pytest

from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.core.errors import LlamaVisionError
from tests.dialects.replies import CHAT_COMPLETIONS
from tests.fuzz.inputs import DIALECTS
from tests.toolcalls.cases_record import PARIS, TOOLS

PIECE = 250
MEGABYTE = 10**6


def delta(**fields):
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": fields}]}).encode() + b"\n\n"


def call(arguments="", **fields):
    name = {"name": fields.pop("name")} if "name" in fields else {}
    return {"function": {"arguments": arguments, **name}, **fields}


def calls_of(*calls):
    return delta(tool_calls=list(calls))


def numbered(make, length):
    """Repeat what is made of a number, up to a length."""
    size = len(make(0))
    return b"".join(map(make, range(length // size)))


def repeated(unit, begin=b"", end=b""):
    return lambda length: begin + unit * (length // len(unit)) + end


END = delta(content="") + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
STREAMS = {
    "a line without end": repeated(b"x", b"data: "),
    "a comment without end": repeated(b"x", b": "),
    "white space": repeated(b" "),
    "white space behind a byte order mark": repeated(b"\n ", b"\xef\xbb\xbf"),
    "blank lines": repeated(b"\n", b"data: a\n\n"),
    "carriage returns": repeated(b"\r", b": a\n"),
    "comments": repeated(b": OPENROUTER PROCESSING\n\n"),
    "heartbeats": repeated(b"event: ping\ndata: {}\n\n"),
    "lines of one event": repeated(b"data: a\n"),
    "lines of data without any": repeated(b"data\n"),
    "text": repeated(delta(content="word "), end=END),
    "angle brackets": repeated(delta(content="<"), end=END),
    "stop tokens": repeated(delta(content="</s>"), end=END),
    "halves of surrogate pairs": repeated(delta(content="\ud83d"), end=END),
    "spaces of text": repeated(delta(content=" "), end=END),
    "arguments": repeated(calls_of(call('"a", ')), calls_of(call("[", name="f")), END),
    "arguments that are a string": repeated(calls_of(call("a")), calls_of(call('"', name="f")), END),
    "arguments of backslashes": repeated(calls_of(call("\\")), calls_of(call('{"a": "', name="f")), END),
    "arguments without a name": repeated(calls_of(call('"a"')), end=END),
    "a name in pieces": repeated(calls_of(call(name="f")), calls_of(call(name="g")), END),
    "calls": lambda length: numbered(lambda n: calls_of(call("{}", name="f", id=f"{n:06}", index=n)), length) + END,
    "calls without ids": repeated(calls_of(call("{}", name="f", index=0)), end=END),
    "calls with one id": repeated(calls_of(call("{}", name="f", id="a", index=0)), end=END),
    "ids": lambda length: numbered(lambda n: calls_of(call(" ", id=f"{n:06}", index=0)), length) + END,
    "calls of a chunk": repeated(
        b'{"function": {"name": "f", "arguments": "{}"}},', b'data: {"choices": [{"delta": {"tool_calls": [', b"{}]}}]}\n\n"
    ),
    "fragments of a chunk": repeated(b'{"function": {"arguments": "a"}},', b'data: {"choices": [{"delta": {"tool_calls": [', b"{}]}}]}\n\n"),
    "usage": repeated(b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n', delta(content="a"), END),
    "calls in the text": repeated(delta(content=PARIS), end=END),
    "calls in the text, and others": lambda length: delta(content=PARIS) * (length // 300)
    + numbered(lambda n: calls_of(call(json.dumps({"a": 100_000 + n}), name="f", index=n)), length // 2) + END,
}  # fmt: skip
WHOLE = {
    "calls": repeated(b'{"function": {"name": "f"}},', b'{"choices": [{"message": {"tool_calls": [', b"{}]}}]}"),
    "choices": repeated(b'{"message": {"content": "a"}},', b'{"choices": [', b"{}]}"),
    "blocks": repeated(b'{"text": "a"},', b'{"choices": [{"message": {"content": [', b'{}]}, "finish_reason": "stop"}]}'),
    "text": repeated(b"\\ud83d", b'{"choices": [{"message": {"content": "', b'"}}]}'),
    "native calls": repeated(b'{"name": "f"},', b'{"result": {"tool_calls": [', b"{}]}}"),
    "objects for arguments": repeated(b"{},", b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": [', b"{}]}}]}}]}"),
    "open brackets": repeated(b"["),
    "unreadable choices": repeated(b"1,", b'{"choices": [', b"1]}"),
    "objects": repeated(b'{"a": ', b"", b"1"),
}  # fmt: skip
ERRORS = {
    "titles": repeated(b"<title>"),
    "titles that end": repeated(b"<title></title>"),
    "words": repeated(b"a "),
    "spaces": repeated(b" ", b'{"message": "', b'"}'),
    "digits": repeated(b"1234 ", b'{"errors": [{"message": "', b'"}]}'),
    "digits and spaces": repeated(b" ", b'{"errors": [{"message": "12345', b'"}]}'),
    "messages": repeated(b'{"message": "a"},', b'{"errors": [', b"{}]}"),
    "places": repeated(b"1,", b'{"detail": [{"msg": "a", "loc": [', b"1]}]}"),
    "context lengths": repeated(b"context length ", b'{"message": "maximum context length is 1, ', b'"}'),
    "prompts": repeated(b"prompt (", b'{"message": "', b'"}'),
    "requests": repeated(b"is too large: 1", b'{"message": "maximum context length is 1, ', b'"}'),
    "tokens": repeated(b"Given: 1 `inputs` tokens and ", b'{"message": "maximum context length is 1, ', b'"}'),
    "spaces behind a limit": repeated(b" is", b'{"message": "maximum context length is 1, context size', b'"}'),
    "halves": repeated(b"\\ud83d", b'{"message": "', b'"}'),
}  # fmt: skip
QUICK = (
    *(
        "stream of a line without end",
        "stream of white space",
        "stream of calls",
        "stream of arguments that are a string",
    ),
    "error of titles",
)


def read_stream(body):
    reply = ReplyStream(
        CHAT_COMPLETIONS.decoder("asked", {}), streamed=True, stops=("STOP",), tools=tuple(TOOLS["usual"])
    )
    for start in range(0, len(body), PIECE):
        for _ in reply.feed(body[start : start + PIECE]):
            pass
    for _ in reply.close():
        pass


def read_whole(body):
    for dialect in DIALECTS.values():
        with_error(
            lambda dialect=dialect: ReplyStream(dialect.decoder("asked", {}), streamed=False).decode_body(
                body
            )
        )


def with_error(read):
    try:
        read()
    except LlamaVisionError as error:
        assert str(error)  # noqa: PT017 - some raise, and some don't


KINDS = {
    **{f"stream of {kind}": (lambda body: with_error(lambda: read_stream(body)), make) for kind, make in STREAMS.items()},
    **{f"body of {kind}": (read_whole, make) for kind, make in WHOLE.items()},
    **{f"error of {kind}": (lambda body: CHAT_COMPLETIONS.errors.parse(400, body, {}), make) for kind, make in ERRORS.items()},
}  # fmt: skip
every_kind = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in KINDS],
)


def seconds(kind, length):
    read, make = KINDS[kind]
    body = make(length)
    tracer = sys.gettrace()  # a coverage measurement takes several times as long as what it measures
    sys.settrace(None)
    try:
        began = time.process_time()
        read(body)
        return time.process_time() - began
    finally:
        sys.settrace(tracer)


@every_kind
def test_four_times_as_much_takes_four_times_as_long(kind):
    length = 20_000
    while seconds(kind, length) < 0.005 and length < MEGABYTE:  # too little to measure
        length *= 2
    ratios = (seconds(kind, 4 * length) / max(seconds(kind, length), 0.001) for _ in range(4))
    assert any(ratio < 8 for ratio in ratios)  # by the square it would be 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_four_times_as_much_takes_four_times_the_memory(kind):
    read, make = KINDS[kind]
    peaks = []
    for length in (100_000, 400_000):
        body = make(length)
        tracemalloc.start()
        read(body)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 6 * peaks[0] + MEGABYTE
    assert peaks[1] < 150 * 400_000

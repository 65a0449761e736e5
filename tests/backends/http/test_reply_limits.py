"""Replies of any size, compressed or not, take a limited memory, and end in an error that says so."""

import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from llama_vision.backends.http import reply_stream
from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.core.errors import LlamaVisionError, MalformedReplyError, RateLimitError
from llama_vision.dialects.dialect import MAX_PAYLOAD_BYTES
from tests.dialects.replies import CHAT_COMPLETIONS
from tests.emulator import Answer, Emulator, chunks, completion, event_stream, json_answer
from tests.emulator.asking import STREAMED_WAYS, ask, backend_for

CODERS = {"gzip": gzip.compress, "deflate": zlib.compress}
MEGABYTE = b"x" * 2**20
TOO_MUCH = (b'{"choices": [{"message": {"content": "', *[MEGABYTE] * 30, b'"}}]}')
every_way = pytest.mark.parametrize(
    "way",
    [
        "complete",
        pytest.param("acomplete", marks=pytest.mark.slow),
        pytest.param("stream", marks=pytest.mark.slow),
        "astream",
    ],
)


@cache
def compressed(body: bytes, *codings: str, status: int = 200) -> Answer:
    for coding in codings:
        body = CODERS[coding](body)
    headers = {"content-type": "application/json", "content-encoding": ", ".join(codings)}
    return Answer((body,), status, headers)


def peak_of(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_refused(
    emulator: Emulator, way: str, answer: Answer, kind: type[LlamaVisionError] = MalformedReplyError
) -> str:
    """Ask, and give the error's text."""
    emulator.script(answer)
    errors: list[LlamaVisionError] = []

    def read() -> None:
        with pytest.raises(kind) as caught:
            ask(backend_for(emulator, max_retries=0), way)
        errors.append(caught.value)

    assert peak_of(read) < 6 * MAX_PAYLOAD_BYTES
    assert len(emulator.requests) == 1
    return str(errors[0])


@pytest.mark.parametrize("coding", CODERS)
@every_way
def test_a_small_body_that_becomes_a_large_one_is_given_up(emulator: Emulator, way: str, coding: str):
    answer = compressed(b" " * (4 * MAX_PAYLOAD_BYTES), coding)
    assert "given up" in assert_refused(emulator, way, answer)


@every_way
def test_a_body_that_is_compressed_twice_is_refused(emulator: Emulator, way: str):
    answer = compressed(b" " * (4 * MAX_PAYLOAD_BYTES), "gzip", "gzip")
    assert "compressed more than once: gzip, gzip" in assert_refused(emulator, way, answer)


@every_way
def test_a_body_that_is_too_long_is_given_up(emulator: Emulator, way: str):
    answer = Answer(TOO_MUCH, headers={"content-type": "application/json"})
    assert "given up" in assert_refused(emulator, way, answer)
    assert emulator.wait_for_disconnect()


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_an_event_that_is_too_long_is_given_up(emulator: Emulator, way: str):
    assert "16 MB" in assert_refused(emulator, way, event_stream(b"data: ", *TOO_MUCH))
    assert emulator.wait_for_disconnect()


@pytest.mark.parametrize("codings", [("gzip",), ("gzip", "gzip")], ids=len)
@every_way
def test_an_error_is_one_of_its_status_whatever_its_body_becomes(
    emulator: Emulator, way: str, codings: tuple[str, ...]
):
    answer = compressed(b"Slow down! " * (MAX_PAYLOAD_BYTES // 4), *codings, status=429)
    assert assert_refused(emulator, way, answer, RateLimitError).startswith("429: ")


@every_way
def test_of_a_long_error_the_beginning_is_told(emulator: Emulator, way: str):
    answer = Answer((b"Slow down! " * 200_000,), 429)
    assert assert_refused(emulator, way, answer, RateLimitError).startswith("429: Slow down! Slow")


@pytest.mark.parametrize("coding", CODERS)
@every_way
def test_a_reply_may_be_compressed(emulator: Emulator, way: str, coding: str):
    text = "Hello there, " * 1000
    steps = event_stream(*chunks(completion(text)), "[DONE]").steps
    body = b"".join(steps) if way in STREAMED_WAYS else json_answer(completion(text)).steps[0]
    packed = CODERS[coding](body)
    emulator.script(replace(compressed(b"", coding), steps=(packed[:100], packed[100:])))
    assert ask(backend_for(emulator), way).text == text


def test_a_stream_has_a_largest_length(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reply_stream, "MAX_STREAM_BYTES", 1000)
    reply = ReplyStream(CHAT_COMPLETIONS.decoder("asked", {}), streamed=True)
    event = event_stream({"choices": [{"delta": {"content": "word "}}]}).steps[0]
    with pytest.raises(MalformedReplyError, match="longer than"):
        list(itertools.chain.from_iterable(reply.feed(event) for _ in range(100)))
    assert reply.partial().text == "word " * (1000 // len(event))

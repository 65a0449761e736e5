"""What goes wrong after a 200."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.errors import (
    ContextTooLongError,
    InvalidRequestError,
    LlamaVisionError,
    MalformedReplyError,
    RateLimitError,
    ServerError,
    StatusError,
    TruncatedStreamError,
)
from llama_vision.core.events import TextDelta
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.sse import SseDecoder
from tests.dialects.replies import DONE, chunk, encoded, events_of, whole

HELLO = chunk({"content": "Hello"})


@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [HELLO],
        [chunk({"role": "assistant"})],
        [HELLO, {"usage": {"prompt_tokens": 1}}],
        [DONE],
        [{"usage": {"prompt_tokens": 1}}],
        [{"choices": []}],
        [{}],
    ],
    ids=lambda payloads: json.dumps(payloads, default=str)[:60],
)
def test_an_end_before_the_model_finished_is_an_error(payloads):
    with pytest.raises(TruncatedStreamError, match="before the model had finished"):
        events_of(*payloads)


@pytest.mark.parametrize(
    "payloads",
    [[HELLO, DONE], [HELLO, chunk(finish_reason="stop")], [whole({"content": "Hi"}, finish_reason=None)]],
    ids=["end mark", "finish reason", "whole body"],
)
def test_one_sign_of_the_end_is_enough(payloads):
    assert events_of(*payloads)


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        ({"error": {"message": "upstream broke", "code": 502}}, ServerError, "502: upstream broke"),
        ({"error": {"message": "slow down", "code": 429}, "choices": []}, RateLimitError, "429: slow down"),
        ({"error": {"message": "no code", "code": None}}, ServerError, "500: no code"),
        ({"error": {"message": "a word", "code": "invalid_prompt"}}, ServerError, "500: a word"),
        ({"error": {"message": "out of range", "code": 5016}}, ServerError, "500: 5016: out of range"),
        ({"error": {"message": "a flag", "code": True}}, ServerError, "500: a flag"),
        ({"error": {"message": "last status", "code": 599}}, ServerError, "599: last status"),
        ({"error": {"message": "no status", "code": 600}}, ServerError, "500: 600: no status"),
        ({"error": {"message": "first status", "code": 400}}, InvalidRequestError, "400: first status"),
        ({"error": {"message": "no failure's", "code": 399}}, ServerError, "500: no failure's"),
        ({"error": "just words"}, ServerError, "500: just words"),
        ({"detail": "just words"}, ServerError, "500: just words"),
        (
            {"error": {"message": "maximum context length is 8192 tokens", "code": 400}},
            ContextTooLongError,
            "400: maximum context length is 8192 tokens",
        ),
        (
            {"success": False, "result": {}, "errors": [{"code": 5006, "message": "bad input"}], "messages": []},
            InvalidRequestError,
            "400: 5006: bad input",
        ),
        ({"message": "slow down", "statusCode": "429", "path": "/v1"}, RateLimitError, "429: slow down"),
        ({"message": "no status", "statusCode": "9" * 5000}, ServerError, "500: no status"),
        ({"message": "no status", "statusCode": "4 9"}, ServerError, "500: no status"),
        ({"object": "error", "message": "bad input", "code": 400}, InvalidRequestError, "400: bad input"),
        ({"success": False, "errors": [{"code": 9999, "message": "new"}]}, ServerError, "500: 9999: new"),
        (
            {"success": False, "errors": []},
            ServerError,
            '500: {"success": false, "errors": []}',
        ),
        ({"error": {"message": "beside an unreadable choice", "code": 503}, "choices": 1}, ServerError, "503: beside"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)  # fmt: skip
@pytest.mark.parametrize("before", [[], [HELLO]], ids=["at once", "midway"])
def test_a_failure_behind_a_200_is_raised_as_what_it_is(before, payload, kind, message):
    with pytest.raises(StatusError) as caught:
        events_of(*before, payload, DONE)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ('{"message": "slow down", "code": 429}', RateLimitError),
        ('{"error": {"message": "slow down", "code": 429}}', RateLimitError),
        ('"slow down"', ServerError),
    ],
)
def test_an_event_named_error_is_a_failure_with_its_own_code(data, kind):
    payloads = SseDecoder().feed(f"event: error\ndata: {data}\n\n".encode())
    with pytest.raises(StatusError, match="slow down") as caught:
        events_of(HELLO, *payloads)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "fields", [{"detail": "cached"}, {"success": False}, {"usage": {}, "detail": "cached"}], ids=repr
)
def test_an_answer_is_no_failure_whatever_stands_beside_it(fields):
    assert events_of(whole({"content": "Hi"}, **fields))[1] == TextDelta("Hi")


@pytest.mark.parametrize("error", [None, "", {}, []])
def test_an_empty_error_field_is_none(error):
    assert events_of(whole({"content": "Hi"}, error=error))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"{",
        b'{"choices": [{"delta": {"content": "Hel',
        b"null",
        b"[]",
        b'"text"',
        b'{"choices": 1}',
        b'{"choices": [{"delta": {"content": {"a": 1}}}]}',
        b'{"choices": [{"delta": {"content": "\xff"}}]}',
        b'{"choices": "\\ud83d"',
        b'{"choices": "\\ud83d"}',
        b"<html>",
        b"[" * 100_000,
    ],
    ids=lambda payload: repr(payload[:40]),
)
def test_what_can_not_be_read_is_quoted(payload):
    with pytest.raises(MalformedReplyError) as caught:
        events_of(HELLO, payload)
    assert repr(payload[:200].decode(errors="replace")) in str(caught.value)


def test_what_can_not_be_read_is_quoted_in_short():
    with pytest.raises(MalformedReplyError) as caught:
        events_of(b"x" * 10_000)
    assert len(str(caught.value)) < 300


def test_the_reason_something_can_not_be_read_is_kept():
    with pytest.raises(MalformedReplyError) as caught:
        events_of(b"{")
    assert "Invalid JSON" in str(caught.value.__cause__)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def fields(**known):
    """Make a strategy for objects with some of these fields, each now and then with any value."""
    return st.fixed_dictionaries({}, optional={name: values | ANY for name, values in known.items()})


CALL = fields(
    index=st.integers(0, 2),
    id=st.sampled_from(["a", "b"]),
    function=fields(name=st.text(), arguments=st.text()),
)
MESSAGE = fields(
    content=st.lists(fields(text=st.text())) | st.text(),
    refusal=st.text(),
    tool_calls=st.lists(CALL, max_size=3),
)
CHOICE = fields(index=st.just(0), delta=MESSAGE, message=MESSAGE, finish_reason=st.just("stop"))
ERROR = fields(message=st.text(), code=st.integers(0, 999), error=st.text())
PAYLOAD = fields(
    id=st.text(),
    choices=st.lists(CHOICE, max_size=2),
    usage=fields(
        prompt_tokens=st.floats(), cost=st.floats(), prompt_tokens_details=fields(cached_tokens=ANY)
    ),
    error=ERROR,
    errors=st.lists(ERROR, max_size=2),
    detail=st.lists(fields(loc=ANY, msg=ANY), max_size=2),
    success=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(PAYLOAD.map(encoded) | st.just(DONE) | st.binary(), max_size=5))
def test_no_payload_raises_anything_but_our_own_errors(payloads):
    decoder = ChatCompletionsDialect().decoder("asked", {})
    try:
        for payload in payloads:
            decoder.feed(payload)
        decoder.close()
    except LlamaVisionError as error:
        assert str(error)  # noqa: PT017 - most payloads raise, and some don't


@pytest.mark.parametrize(
    "payload", [{"error": {"message": "oh no"}}, {"error": {"message": "oh no"}, "choices": 1}], ids=str
)
def test_a_failure_behind_a_200_has_the_id_for_support(payload):
    with pytest.raises(StatusError) as caught:
        events_of(payload, headers={"x-request-id": "req-1"})
    assert caught.value.request_id == "req-1"


def test_a_failure_that_names_its_own_id_keeps_it():
    with pytest.raises(StatusError) as caught:
        events_of({"error": {"message": "oh no"}, "requestId": "own"}, headers={"x-request-id": "req-1"})
    assert caught.value.request_id == "own"


HALF = "\ud83d"


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": f"oh {HALF}no", "code": 400}},
        {"detail": [{"loc": [HALF], "msg": "oh"}]},
        {"error": "oh", "requestId": HALF},
        {"choices": [{"delta": {"content": "a"}, "error": {"message": HALF}}]},
    ],
    ids=str,
)
def test_half_a_surrogate_pair_in_an_error_can_be_written_anywhere(payload):
    with pytest.raises(LlamaVisionError) as caught:
        events_of(json.dumps(payload).encode(), DONE)
    text = f"{caught.value}{getattr(caught.value, 'request_id', None)}{getattr(caught.value, 'body', '')}"
    assert text.encode()
    assert "\ufffd" in text

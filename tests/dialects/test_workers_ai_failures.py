"""What goes wrong in Cloudflare's native replies: failures behind a 200, and what can't be read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.errors import (
    InvalidRequestError,
    LicenseNotAcceptedError,
    LlamaVisionError,
    MalformedReplyError,
    RateLimitError,
    ServerError,
    StatusError,
)
from llama_vision.dialects.workers_ai.dialect import WorkersAiDialect
from tests.dialects.replies import DONE, encoded, enveloped, native_events_of, native_reply_to


def failure(code, message="m", **fields):
    return {"success": False, "errors": [{"code": code, "message": message}], "messages": [], **fields}


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        (failure(5006, "bad input", result={}), InvalidRequestError, "400: 5006: bad input"),
        (failure(5016, "agree", result=None), LicenseNotAcceptedError, "403: 5016: agree"),
        (failure(3040), RateLimitError, "429: 3040: m"),
        (failure(3007), ServerError, "408: 3007: m"),
        (failure(9999), ServerError, "500: 9999: m"),
        (failure(3040, result={"response": "Hi"}), RateLimitError, "429: 3040: m"),
        ({"success": False, "errors": [], "result": None}, ServerError, "500: "),
        ({"error": {"message": "upstream", "code": 502}}, ServerError, "502: upstream"),
        ({"error": "upstream"}, ServerError, "500: upstream"),
        ({"success": False, "errors": [], "result": "Hi"}, ServerError, "500: "),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("before", [[], [{"response": "Hel"}]], ids=["at once", "midway"])
def test_a_failure_behind_a_200_is_raised_as_what_it_is(before, payload, kind, message):
    with pytest.raises(StatusError) as caught:
        native_events_of(*before, payload, DONE)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "empty", [{"error": ""}, {"error": None}, {"errors": []}, {"success": None}], ids=repr
)
def test_an_empty_error_field_is_none(empty):
    assert native_reply_to(enveloped({"response": "Hi"}) | empty).text == "Hi"


@pytest.mark.parametrize(
    "payload",
    [
        b"not json", b"[]", b"<html>", b'{"result": "Hi"}', b'{"choices": 1}', b"[" * 100_000,
        {"tool_calls": 7}, {"tool_calls": [{"name": ["weather"]}]}, {"tool_calls": [{"id": {}}]},
        enveloped({"tool_calls": [{"function": {"name": {}}}]}),
    ],
    ids=lambda payload: repr(payload)[:40],
)  # fmt: skip
def test_what_can_not_be_read_is_quoted(payload):
    with pytest.raises(MalformedReplyError, match="The provider sent something that can't be read") as caught:
        native_events_of({"response": "Hi"}, payload)
    assert repr(encoded(payload)[:200].decode()) in str(caught.value)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def fields(**known):
    return st.fixed_dictionaries({}, optional={name: values | ANY for name, values in known.items()})


CALLS = st.lists(fields(name=st.text(), arguments=ANY, id=st.text(), index=ANY, function=fields(name=ANY)))
NATIVE = {"response": ANY, "tool_calls": CALLS, "usage": fields(neurons=st.floats()), "choices": ANY}
PAYLOAD = fields(
    **NATIVE, result=fields(**NATIVE), success=st.booleans(), errors=st.lists(fields(code=ANY)), error=ANY
)


@settings(deadline=None)
@given(st.lists(PAYLOAD.map(encoded) | st.just(DONE) | st.binary(), max_size=4))
def test_no_payload_raises_anything_but_our_own_errors(payloads):
    decoder = WorkersAiDialect().decoder("asked", {}, max_tokens=5)
    try:
        for payload in payloads:
            decoder.feed(payload)
        decoder.close()
    except LlamaVisionError as error:
        assert str(error)  # noqa: PT017 - most payloads raise, and some don't

"""The message is found in every shape an error comes in, and the status decides what it means."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core import errors
from llama_vision.core.errors import ContextTooLongError, InsufficientCreditsError, InvalidRequestError
from llama_vision.dialects.error_bodies import find_request_id
from tests.dialects.replies import CHAT_COMPLETIONS

ERRORS = CHAT_COMPLETIONS.errors
NOTHING_SAID = "no explanation was given"
HTML = b"<!DOCTYPE html><html><head><TITLE>\n 502 Bad Gateway </TITLE></head><body>nginx</body></html>"

SHAPES = {
    "object": ({"error": {"message": "m", "type": "t", "code": 429, "param": None}}, "m"),
    "object, code a string": ({"error": {"message": "m", "code": "rate_limit"}}, "m"),
    "object, code null": ({"error": {"message": "m", "type": "t", "code": None}}, "m"),
    "string": ({"error": "Model not found"}, "Model not found"),
    "detail, object": ({"detail": {"error": "Not authenticated"}}, "Not authenticated"),
    "detail, string": ({"detail": "m"}, "m"),
    "detail, list": (
        {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}]},
        "body.messages: field required",
    ),
    "detail, longer list": (
        {"detail": [{"loc": ["body", 0], "msg": "one"}, {"msg": "two"}, {"type": "x"}]},
        "body.0: one; two",
    ),
    "cloudflare": (
        {"success": False, "errors": [{"code": 5006, "message": "bad input"}], "result": None},
        "5006: bad input",
    ),
    "cloudflare, two": (
        {"success": False, "errors": [{"code": 5004, "message": "a"}, {"code": 7001, "message": "b"}]},
        "5004: a; 7001: b",
    ),
    "cloudflare, none": ({"success": False, "errors": []}, '{"success": false, "errors": []}'),
    "flat": (
        {"message": "Free-tier limit", "path": "/v1", "requestId": "r-1", "statusCode": "429", "timestamp": "t"},
        "Free-tier limit",
    ),
    "nested": ({"error": {"error": {"message": "m"}}}, "m"),
    "empty words": ({"error": "", "message": "m"}, "m"),
    "no words": ({"error": {"type": "t"}}, '{"error": {"type": "t"}}'),
    "words of another kind": ({"error": 7}, '{"error": 7}'),
    "no object": (["m"], '["m"]'),
    "a number": (7, "7"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_the_message_is_found(body, message):
    assert str(ERRORS.parse(422, json.dumps(body).encode(), {})) == f"422: {message}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (HTML, "502 Bad Gateway"),
        (b"upstream connect error", "upstream connect error"),
        (b"<html><title> </title></html>", NOTHING_SAID),
        (b"", NOTHING_SAID),
        (b" \r\n", NOTHING_SAID),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"error": {"mess', '{"error": {"mess'),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_body_that_is_no_json_does_not_hide_the_status(body, message):
    error = ERRORS.parse(502, body, {})
    assert str(error) == f"502: {message}"
    assert error.status_code == 502


@pytest.mark.parametrize("body", [b"x" * 100_000, b'{"type": "' + b"x" * 100_000 + b'"}', b"[" * 100_000])
def test_a_long_body_is_shortened(body):
    error = ERRORS.parse(500, body, {})
    assert len(str(error)) < 600
    assert error.body == body[:500].decode()


@pytest.mark.parametrize("depth", [480, 900])
def test_words_nested_without_end_are_not_dug_for(depth):
    body = b'{"error":' + b"[" * depth + b"]" * depth + b"}"
    assert str(ERRORS.parse(500, body, {})).startswith('500: {"error":[[[')


KINDS = {
    301: "StatusError",
    400: "InvalidRequestError",
    401: "AuthenticationError",
    402: "InsufficientCreditsError",
    403: "PermissionDeniedError",
    404: "ModelNotFoundError",
    405: "InvalidRequestError",
    408: "ServerError",
    409: "ServerError",
    413: "InvalidRequestError",
    418: "InvalidRequestError",
    422: "InvalidRequestError",
    429: "RateLimitError",
    500: "ServerError",
    502: "ServerError",
    503: "ServerError",
    504: "ServerError",
    529: "ServerError",
}


@pytest.mark.parametrize(("status", "kind"), KINDS.items())
def test_the_status_decides_the_kind(status, kind):
    error = ERRORS.parse(status, b'{"error": {"message": "m", "type": "authentication_error"}}', {})
    assert type(error) is getattr(errors, kind)
    assert error.retryable is (status in {408, 409, 429} or status >= 500)
    assert error.status_code == status


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (403, "You've run out of credits. Top up.", InsufficientCreditsError),
        (403, "please enter a payment method in https://deepinfra.com/dash", InsufficientCreditsError),
        (403, "Insufficient balance", InsufficientCreditsError),
        (
            400,
            "inference prohibited, please enter a payment method in https://deepinfra.com/dash",
            InsufficientCreditsError,
        ),
        (400, "Unknown payment method", InvalidRequestError),
        (403, "Not authenticated", errors.PermissionDeniedError),
        (429, "Insufficient credits", errors.RateLimitError),
        (400, "This model's maximum context length is 8192 tokens", ContextTooLongError),
        (413, "Prompt is too long", ContextTooLongError),
        (422, "The context window is 131072 tokens", ContextTooLongError),
        (400, "There are too many tokens.", ContextTooLongError),
        (429, "too many tokens per minute", errors.RateLimitError),
        (500, "maximum context length", errors.ServerError),
    ],
)
def test_the_text_refines_only_where_the_status_leaves_it_open(status, message, kind):
    assert type(ERRORS.parse(status, json.dumps({"detail": message}).encode(), {})) is kind


def test_a_context_that_is_too_long_may_be_told_by_the_code_alone():
    body = {
        "error": {"message": "Please reduce the length of the messages.", "code": "context_length_exceeded"}
    }
    assert type(ERRORS.parse(400, json.dumps(body).encode(), {})) is ContextTooLongError


def test_a_users_words_that_are_repeated_decide_nothing():
    body = {"detail": [{"msg": "field required", "input": 'What is "context_length_exceeded"?'}]}
    assert type(ERRORS.parse(422, json.dumps(body).encode(), {})) is InvalidRequestError


@pytest.mark.parametrize(
    ("headers", "body", "request_id"),
    [
        ({"x-request-id": "a", "x-inference-id": "b", "cf-ray": "c"}, {"requestId": "d"}, "a"),
        ({"x-inference-id": "b", "cf-ray": "c"}, {}, "b"),
        ({"cf-ray": "c"}, {"requestId": "d"}, "c"),
        ({}, {"requestId": "d"}, "d"),
        ({}, {"requestId": 7}, None),
        ({}, {}, None),
        ({}, [], None),
    ],
)
def test_the_request_id_is_found(headers, body, request_id):
    assert ERRORS.parse(500, json.dumps(body).encode(), headers).request_id == request_id


def test_no_request_id_is_found_in_other_headers():
    assert find_request_id({"content-type": "text/html", "x-request": "no"}) is None


def test_how_long_to_wait_is_left_to_who_has_a_clock():
    assert ERRORS.parse(429, b"", {"retry-after": "5"}).retry_after is None


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"code": 404, "message": "no such model"}, "404: no such model"),
        ({"code": "busy", "msg": "try later"}, "500: try later"),
        ({"detail": "no"}, "500: no"),
        ({"statusCode": 429, "message": "slower"}, "429: slower"),
        ({"object": "error", "message": "no"}, "500: no"),
        ({"success": False, "message": "no"}, "500: no"),
    ],
    ids=repr,
)
def test_a_failure_behind_a_200_is_seen(payload, text):
    assert str(ERRORS.find(json.dumps(payload).encode())) == text


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[DONE]",
        b"{",
        b"[]",
        b"7",
        b'"error"',
        b"{}",
        b'{"error": null}',
        b'{"error": ""}',
        b'{"success": true, "errors": []}',
        b'{"choices": []}',
        b'{"code": 0, "message": "fine"}',
        b'{"code": 404}',
        b'{"message": "fine"}',
        b"[" * 100_000,
    ],
    ids=lambda payload: repr(payload[:20]),
)
def test_no_failure_is_seen_where_none_is_told(payload):
    assert ERRORS.find(payload) is None


@pytest.mark.parametrize(
    "fields",
    [
        '"message": "maximum context length is ' + "9" * 5000 + ' tokens"',
        '"message": "maximum context length is' + " " * 50_000 + '"',
        '"message": "' + "prompt (length " * 5000 + '"',
        '"code": ' + "[" * 400 + "]" * 400,
        '"status": ' + "9" * 4000,
        '"code": "\u0664\u0660\u0664"',
    ],
    ids=lambda fields: fields[:30],
)
@pytest.mark.parametrize("status", [400, 500])
def test_numbers_and_lists_without_end_make_an_error_all_the_same(fields, status):
    body = b'{"error": {' + fields.encode() + b"}}"
    assert str(ERRORS.parse(status, body, {})).startswith(f"{status}: ")
    assert str(ERRORS.find(body)).startswith("500: ")


@settings(deadline=None)
@given(st.integers(min_value=100, max_value=999), st.binary())
def test_any_body_makes_an_error_that_names_its_status(status, body):
    error = ERRORS.parse(status, body, {})
    assert str(error).startswith(f"{status}: ")
    assert len(str(error)) > len("400: ")


def test_what_a_deep_body_says_does_not_depend_on_how_deep_the_caller_is():
    body = b'{"error": {"message": "m"}, "x": ' + b'{"a":' * 700 + b"1" + b"}" * 701

    def called_from(depth):
        return called_from(depth - 1) if depth else str(ERRORS.parse(400, body, {}))

    assert called_from(0) == called_from(600)

"""What Cloudflare's own codes mean, on both of its routes, with an error status and behind a 200."""

import json

import pytest

from llama_vision.core.errors import (
    AuthenticationError,
    ContextTooLongError,
    InvalidRequestError,
    LicenseNotAcceptedError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from llama_vision.dialects.workers_ai.dialect import WorkersAiDialect
from llama_vision.dialects.workers_ai.error_codes import ERROR_CODES

ERRORS = WorkersAiDialect().errors

# https://developers.cloudflare.com/workers-ai/platform/errors/, and those that users saw: code, status, error, advice
TABLE = [
    (3003, 400, InvalidRequestError, ""),
    (3006, 413, InvalidRequestError, "scale the image down"),
    (3007, 408, ServerError, ""),
    (3008, 408, ServerError, ""),
    (3023, 403, PermissionDeniedError, "blocked"),
    (3036, 429, QuotaExhaustedError, "free neurons of today are used up"),
    (3039, 400, InvalidRequestError, ""),
    (3040, 429, RateLimitError, ""),
    (3041, 403, PermissionDeniedError, ""),
    (3042, 404, ModelNotFoundError, ""),
    (5004, 400, InvalidRequestError, ""),
    (5005, 405, InvalidRequestError, ""),
    (5006, 400, InvalidRequestError, ""),
    (5007, 400, ModelNotFoundError, ""),
    (5016, 403, LicenseNotAcceptedError, "accept-license cloudflare"),
    (5018, 403, PermissionDeniedError, ""),
    (5019, 405, InvalidRequestError, ""),
    (5035, 403, PermissionDeniedError, "Workers Paid"),
    (7000, 404, ModelNotFoundError, "Check the account id"),
    (7003, 404, ModelNotFoundError, "Check the account id"),
    (8001, 400, InvalidRequestError, ""),
    (8005, 400, InvalidRequestError, "image can't be read"),
    (8006, 400, InvalidRequestError, "is taken for an image"),
    (10000, 401, AuthenticationError, ""),
]
RETRYABLE = {3007, 3008, 3040}


def envelope(code, message="AiError: m", **fields):
    error = {"message": message} if code is None else {"code": code, "message": message}
    return json.dumps(
        {"result": None, "success": False, "errors": [error], "messages": [], **fields}
    ).encode()


def test_the_table_holds_every_code_we_know():
    assert [code for code, *_ in TABLE] == sorted(ERROR_CODES)


@pytest.mark.parametrize(("code", "status", "kind", "advice"), TABLE)
def test_a_code_is_an_error_of_ours_with_advice_where_its_words_have_none(code, status, kind, advice):
    error = ERRORS.parse(status, envelope(code), {"cf-ray": "ray-1"})
    assert type(error) is kind
    assert error.retryable is (code in RETRYABLE)
    assert str(error).startswith(f"{status}: {code}: AiError: m")
    assert advice in str(error)
    assert bool(advice) is bool(ERROR_CODES[code].advice)
    assert (error.status_code, error.request_id) == (status, "ray-1")


@pytest.mark.parametrize(("code", "status", "kind", "advice"), TABLE)
def test_behind_a_200_the_code_tells_the_status(code, status, kind, advice):
    error = ERRORS.find(envelope(code))
    assert type(error) is kind
    assert error.status_code == status
    assert advice in str(error)


@pytest.mark.parametrize(("code", "status", "kind", "advice"), TABLE)
@pytest.mark.parametrize("words", ["AiError: AiError: {}: m", "{}: m", "AiError: {} : m (1b0c-4f)"])
def test_a_code_that_stands_in_the_words_alone_counts(code, status, kind, advice, words):
    error = ERRORS.parse(status, envelope(None, words.format(code)), {})
    assert type(error) is kind
    assert advice in str(error)


@pytest.mark.parametrize("code", ["5016", None, True, 50.16])
def test_a_code_that_is_no_number_is_looked_for_in_the_words(code):
    kind = LicenseNotAcceptedError if code is not True else PermissionDeniedError
    assert type(ERRORS.parse(403, envelope(code, "AiError: 5016: agree"), {})) is kind


def test_the_license_error_says_what_to_read_and_how_to_accept():
    text = str(ERRORS.parse(403, envelope(5016), {}))
    assert "models/llama3_2/LICENSE" in text
    assert "accept_license=True" in text


def test_a_wrong_account_may_come_with_403_too():
    assert type(ERRORS.parse(403, envelope(10000), {})) is AuthenticationError


@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "errors": []},
        {"success": False, "errors": None},
        {"success": False, "errors": "5016: agree"},
        {"success": False, "errors": {"code": 5016}},
        {"success": False, "errors": [5016, "5016: agree", None, []]},
        {"errors": [{"code": 9999, "message": "m"}]},
        {"errors": [{"code": 9999, "message": "5016: someone's words"}]},
        {"errors": [{"message": "in 5016 ways"}]},
        {"errors": [{"message": "12345: no code of ours"}]},
        {"errors": [{"message": None}]},
        {"error": {"code": 5016, "message": "5016: another's shape"}},
        {"message": "5016: another's shape"},
        {},
    ],
    ids=lambda body: json.dumps(body)[:50],
)
@pytest.mark.parametrize(("status", "kind"), [(400, InvalidRequestError), (403, PermissionDeniedError)])
def test_without_a_known_code_the_status_decides(status, kind, body):
    assert ERRORS.find_code(body) is None
    assert type(ERRORS.parse(status, json.dumps(body).encode(), {})) is kind


@pytest.mark.parametrize("first", [{"code": 7001, "message": "m"}, {}, "m", None])
def test_the_first_code_that_is_known_counts(first):
    errors = [first, {"code": 3036, "message": "m"}, {"code": 3040, "message": "m"}]
    assert ERRORS.find_code({"errors": errors}) is ERROR_CODES[3036]


@pytest.mark.parametrize(("code", "status", "kind", "advice"), TABLE)
@pytest.mark.parametrize("broken", [500, 502, 503])
def test_a_broken_server_is_one_whatever_the_code(broken, code, status, kind, advice):
    error = ERRORS.parse(broken, envelope(code), {})
    assert type(error) is ServerError
    assert error.retryable


def test_the_openai_route_may_use_openais_shape():
    body = {"error": {"code": "invalid_prompt", "message": "AiError: AiError: Request timeout (1b0c)"}}
    error = ERRORS.parse(408, json.dumps(body).encode(), {})
    assert type(error) is ServerError
    assert "Request timeout" in str(error)


def test_a_context_that_is_too_long_has_a_code_of_no_list():
    words = (
        "AiError: The estimated number of tokens (130000) exceeded this model context window limit (128000)."
    )
    assert type(ERRORS.parse(413, envelope(5021, words), {})) is ContextTooLongError

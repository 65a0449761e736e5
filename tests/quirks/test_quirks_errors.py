"""What refusals look like, and what each of them means."""

import json
import traceback
from dataclasses import replace

import pytest

from llama_vision import Tool, find_provider
from llama_vision.core.errors import (
    AuthenticationError,
    ContextTooLongError,
    InsufficientCreditsError,
    InvalidRequestError,
    LicenseNotAcceptedError,
    LlamaVisionError,
    MalformedReplyError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
    StatusError,
)
from tests.context_overflows import OVERFLOWS
from tests.emulator import ACCOUNT_ID, Answer, completion, event_stream, json_answer, page
from tests.quirks.talk import ask, either

SHAPES = {
    "object": {"error": {"message": "m-42", "type": "t", "code": 429, "param": None}},
    "object, code as text": {"error": {"message": "m-42", "type": "t", "code": "rate_limited"}},
    "object, no code": {"error": {"message": "m-42", "type": "t", "code": None}},
    "string": {"error": "m-42"},
    "detail, object": {"detail": {"error": "m-42"}},
    "detail, string": {"detail": "m-42"},
    "detail, list": {"detail": [{"loc": ["body", "messages"], "msg": "m-42", "type": "t"}]},
    "envelope": {"success": False, "errors": [{"code": 9999, "message": "m-42"}], "result": None},
    "flat": {"message": "m-42", "path": "/v1/x", "requestId": "r", "statusCode": "400", "timestamp": "t"},
}
TOOL = Tool("get_weather", "Look.", {"type": "object", "properties": {"city": {"type": "string"}}})


def refused(emulator, provider, way, **more) -> StatusError:
    """Ask, and get the error."""
    with pytest.raises(StatusError) as caught:
        ask(emulator, provider, way, **more)
    return caught.value


def everything_said(error: LlamaVisionError) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


@pytest.mark.parametrize("shape", SHAPES)
def test_quirk_06_the_message_is_found_in_each_of_the_shapes(emulator_of, way, shape):
    emulator = emulator_of("openai-compatible")
    emulator.script(json_answer(SHAPES[shape], 400))
    error = refused(emulator, "openai-compatible", way)
    assert type(error) is InvalidRequestError
    assert error.args[0] in ("400: m-42", "400: body.messages: m-42", "400: 9999: m-42")


@pytest.mark.parametrize("answer", [page("<title>m-42</title>", 400), Answer((b"m-42",), 400)])
def test_quirk_06_the_message_is_found_in_text_and_pages(emulator_of, way, answer):
    emulator = emulator_of("openai-compatible")
    emulator.script(answer)
    assert refused(emulator, "openai-compatible", way).args[0] == "400: m-42"


@pytest.mark.parametrize("behind_201", [False, True])
def test_quirk_07_a_status_may_be_told_as_text(emulator_of, way, behind_201):
    emulator = emulator_of("aimlapi")
    answer = emulator.refusal(429)
    assert b'"statusCode": "429"' in answer.steps[0]
    emulator.script(replace(answer, status=201) if behind_201 else answer)
    error = refused(emulator, "aimlapi", way, options={"max_retries": 0})
    assert (type(error), error.status_code) == (RateLimitError, 429)


@pytest.mark.parametrize("status", [200, 500])
def test_quirk_07_a_failure_may_have_an_empty_list_of_errors(emulator_of, way, status):
    emulator = emulator_of("cloudflare")
    emulator.script(json_answer({"success": False, "errors": [], "result": None, "messages": []}, status))
    assert type(refused(emulator, "cloudflare", way, options={"max_retries": 0})) is ServerError


FORBIDDEN = {
    "out of credits": ("aimlapi", {}, "run out of credits", InsufficientCreditsError),
    "not authenticated": ("deepinfra", {"message": "Not authenticated"}, "Not auth", PermissionDeniedError),
    "license": ("cloudflare", {"code": 5016}, "accept-license cloudflare", LicenseNotAcceptedError),
    "blocked": ("cloudflare", {"code": 3023}, "account is blocked", PermissionDeniedError),
    "private": ("cloudflare", {"code": 5018}, "5018", PermissionDeniedError),
    "private too": ("cloudflare", {"code": 3041}, "3041", PermissionDeniedError),
    "key": ("cloudflare", {"code": 10000}, "Authentication error", AuthenticationError),
}


@pytest.mark.parametrize("meaning", FORBIDDEN)
def test_quirk_08_a_403_means_four_things_and_none_is_asked_again(emulator_of, way, meaning):
    provider, told, words, kind = FORBIDDEN[meaning]
    emulator = emulator_of(provider)
    emulator.script(emulator.refusal(403, **told))
    error = refused(emulator, provider, way)
    assert (type(error), error.status_code, error.retryable) == (kind, 403, False)
    assert words in str(error)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(
    ("provider", "status", "words"),
    [
        ("aigateway", 402, "Monthly spend cap of $500.00 reached (spent $503.12)"),
        ("aigateway", 402, "Insufficient credits"),
        ("deepinfra", 402, "inference prohibited, please enter a payment method in https://deepinfra.com/"),
        ("deepinfra", 400, "inference prohibited, please enter a payment method in https://deepinfra.com/"),
    ],
)
def test_quirk_09_no_money_is_no_rate_limit_and_is_not_asked_again(emulator_of, way, provider, status, words):
    emulator = emulator_of(provider)
    emulator.script(emulator.refusal(status, words))
    error = refused(emulator, provider, way)
    assert (type(error), error.retryable) == (InsufficientCreditsError, False)
    assert words in str(error)
    assert len(emulator.requests) == 1


def test_quirk_10_the_quota_of_a_day_is_not_asked_for_again(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.script(emulator.refusal(429, code=3036, retry_after=0))
    error = refused(emulator, "cloudflare", way)
    assert (type(error), error.retryable) == (QuotaExhaustedError, False)
    assert len(emulator.requests) == 1


QUOTA = "You exceeded your current quota, please check your plan and billing details."
NO_QUOTA = {
    "code and type": {"message": QUOTA, "type": "insufficient_quota", "param": None, "code": "insufficient_quota"},
    "code": {"message": QUOTA, "code": "insufficient_quota"},
    "type": {"message": QUOTA, "type": "insufficient_quota", "code": 429},
    "limit of the month": {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"},
}  # fmt: skip


@pytest.mark.parametrize("form", NO_QUOTA)
@pytest.mark.parametrize("status", [429, 200])
def test_a_429_that_will_never_pass_is_not_asked_again(emulator_of, way, form, status):
    emulator = emulator_of("openai-compatible")
    body = {"error": NO_QUOTA[form]}
    emulator.script(
        either(json_answer(body, status), json_answer(body, 429) if status == 429 else event_stream(body))
    )
    error = refused(emulator, "openai-compatible", way)
    assert (type(error), error.retryable, error.status_code) == (QuotaExhaustedError, False, 429)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("told", [QUOTA, 'Asked: "insufficient_quota"'])
def test_a_429_that_only_talks_of_a_quota_is_asked_again(emulator_of, way, told):
    emulator = emulator_of("openai-compatible")
    body = {"error": {"message": told, "code": "rate_limit_exceeded"}}
    emulator.script(json_answer(body, 429, {"retry-after": "0"}), completion("at last"))
    assert ask(emulator, "openai-compatible", way).text == "at last"


def test_quirk_10_capacity_is_asked_for_again(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.script(emulator.refusal(429, code=3040, retry_after=0), completion("at last"))
    assert ask(emulator, "cloudflare", way).text == "at last"


@pytest.mark.parametrize(
    ("provider", "code", "words"),
    [
        ("deepinfra", None, "Tool calling is not supported for model: X"),
        ("cloudflare", 5005, "AiError: LoRA unsupported for this model"),
        ("cloudflare", 5019, "AiError: deprecated SDK version"),
    ],
)
def test_quirk_11_a_405_says_what_the_model_cannot_do(emulator_of, way, provider, code, words):
    emulator = emulator_of(provider)
    emulator.script(emulator.refusal(405, words, code=code))
    error = refused(emulator, provider, way, tools=(TOOL,))
    assert (type(error), error.status_code) == (InvalidRequestError, 405)
    assert words in str(error)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (402, "insufficient_credits", InsufficientCreditsError),
        (402, "budget_exceeded", InsufficientCreditsError),
        (404, "not_found", ModelNotFoundError),
        (404, "model_not_found", ModelNotFoundError),
        (429, "rate_limit_error", RateLimitError),
        (429, "rate_limited", RateLimitError),
        (401, "insufficient_credits", AuthenticationError),
        (400, "rate_limit_error", InvalidRequestError),
        (503, "not_found", ServerError),
    ],
)
def test_quirk_14_the_status_decides_whatever_the_type_is_called(emulator_of, way, status, name, kind):
    emulator = emulator_of("aigateway")
    emulator.script(json_answer({"error": {"message": "no", "type": name, "code": status}}, status))
    assert type(refused(emulator, "aigateway", way, options={"max_retries": 0})) is kind


@pytest.mark.parametrize("provider", ["cloudflare", "cloudflare-openai"])
def test_quirk_15_a_wrong_account_is_named_as_the_likely_cause_and_not_shown(emulator_of, way, provider):
    wrong = "fedcba98765432100123456789abcdef"
    emulator = emulator_of(provider)
    error = refused(emulator, provider, way, options={"account_id": wrong})
    assert wrong in emulator.requests[0].path
    assert "Check the account id" in str(error)
    assert "/accounts/[account]/" in str(error)
    assert wrong not in everything_said(error)


@pytest.mark.parametrize("form", ["json", "event"])
def test_quirk_15_no_failure_behind_a_200_shows_the_account_either(emulator_of, way, form):
    told = {"code": 7003, "message": f"Could not route to /client/v4/accounts/{ACCOUNT_ID}/ai"}
    body = {"result": None, "success": False, "errors": [told], "messages": []}
    emulator = emulator_of("cloudflare")
    emulator.script(either(json_answer(body), json_answer(body) if form == "json" else event_stream(body)))
    error = refused(emulator, "cloudflare", way)
    assert "Check the account id" in str(error)
    assert ACCOUNT_ID not in everything_said(error)


@pytest.mark.parametrize("server", OVERFLOWS)
def test_a_context_that_is_too_long_is_told_as_that_by_each_server_and_not_asked_again(
    emulator_of, way, server
):
    answer, requested, limit = OVERFLOWS[server]
    emulator = emulator_of("openai-compatible")
    emulator.script(answer)
    error = refused(emulator, "openai-compatible", way)
    assert (type(error), error.retryable) == (ContextTooLongError, False)
    assert (error.requested_tokens, error.context_window) == (requested, limit)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("server", ["LM Studio", "DeepInfra", "vLLM", "llama.cpp, in fields"])
def test_a_context_that_is_too_long_may_be_told_behind_a_200(emulator_of, way, server):
    answer, requested, limit = OVERFLOWS[server]
    body = json.loads(b"".join(step for step in answer.steps if isinstance(step, bytes)))
    emulator = emulator_of("openai-compatible")
    emulator.script(either(json_answer(body), event_stream(body)))
    error = refused(emulator, "openai-compatible", way)
    assert type(error) is ContextTooLongError
    assert (error.requested_tokens, error.context_window) == (requested, limit)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (500, "Not enough memory for a context window of 131072 tokens", ServerError),
        (413, "Request too large for model: tokens per minute (TPM): Limit 6000, Requested 7000", InvalidRequestError),
        (429, "You requested 5000 tokens per minute of a total of 4096", RateLimitError),
        (400, "max_new_tokens must be <= 512", InvalidRequestError),
        (400, "The image is longer than 8192 pixels", InvalidRequestError),
    ],
)  # fmt: skip
def test_other_limits_are_not_taken_for_the_context(emulator_of, way, status, message, kind):
    emulator = emulator_of("openai-compatible")
    emulator.script(json_answer({"error": {"message": message}}, status))
    assert type(refused(emulator, "openai-compatible", way, options={"max_retries": 0})) is kind


@pytest.mark.parametrize(
    ("provider", "status", "hint"),
    [
        ("aimlapi", 400, "deprecated and no longer supported since September 2025"),
        ("aimlapi", 404, "deprecated and no longer supported since September 2025"),
        ("groq", 404, "decommissioned"),
        ("groq", 400, "decommissioned"),
        ("sambanova", 404, "replaced it by Llama 4"),
    ],
)
def test_quirk_16_a_retired_model_is_said_to_be_one_and_not_asked_again(
    emulator_of, way, provider, status, hint
):
    emulator = emulator_of("aimlapi" if provider == "aimlapi" else "openai-compatible")
    if provider == "aimlapi":
        emulator.script(emulator.refusal(status, "no such model"))
    else:  # which knows no model of theirs, and says so with a 404
        emulator.dialect = Refusing(emulator.refusal(status, "no such model"))
    error = refused(emulator, provider, way)
    assert error.status_code == status
    assert "no such model" in str(error)
    assert hint in str(error)
    assert len(emulator.requests) == 1


NO_ANSWERS = {
    "a code and a message": ({"code": 7, "message": "Model does not exist"}, ServerError),
    "the same beside no choices": ({"choices": [], "code": 7, "message": "Model does not exist"}, ServerError),
    "msg": ({"code": "1211", "msg": "Model does not exist"}, ServerError),
    "a status as code": ({"code": 404, "message": "Model does not exist"}, ModelNotFoundError),
    "a message alone": ({"message": "Model does not exist"}, MalformedReplyError),
    "no choices": ({"id": "c-1", "choices": [], "note": "Model does not exist"}, MalformedReplyError),
    "usage alone": ({"usage": {"prompt_tokens": 5}, "message": "Model does not exist"}, MalformedReplyError),
}  # fmt: skip


@pytest.mark.parametrize("form", NO_ANSWERS)
def test_a_200_without_an_answer_is_an_error_in_the_providers_words(emulator_of, way, form):
    body, kind = NO_ANSWERS[form]
    emulator = emulator_of("openai-compatible")
    emulator.script(json_answer(body))
    with pytest.raises(LlamaVisionError) as caught:
        ask(emulator, "openai-compatible", way, options={"max_retries": 0})
    assert type(caught.value) is kind
    assert "Model does not exist" in str(caught.value)
    assert "stream ended" not in str(caught.value)


def test_a_200_without_an_answer_does_not_show_the_key(emulator_of, way):
    emulator = emulator_of("openai-compatible")
    emulator.script(json_answer({"message": f"What is {emulator.api_key}?"}))
    with pytest.raises(MalformedReplyError, match=r"What is \[key\]") as caught:
        ask(emulator, "openai-compatible", way)
    assert emulator.api_key not in everything_said(caught.value)


EVENTS = {
    "status_code": ({"status_code": 400, "message": "m-42"}, 400, InvalidRequestError),
    "status as text": ({"status": "401", "message": "m-42"}, 401, AuthenticationError),
    "inner": ({"status_code": 500, "error": {"code": 404, "message": "m-42"}}, 404, ModelNotFoundError),
    "outer": ({"status_code": 403, "error": {"type": "server_error", "message": "m-42"}}, 403, PermissionDeniedError),
    "a number before a name": ({"status": 422, "error": {"code": "model_not_found", "message": "m-42"}}, 422, InvalidRequestError),
    "a code": ({"error": {"code": "model_not_found", "message": "m-42"}}, 404, ModelNotFoundError),
    "a type": ({"type": "invalid_request_error", "code": None, "message": "m-42"}, 400, InvalidRequestError),
    "another type": ({"type": "internal", "code": 1234567, "message": "m-42"}, 500, ServerError),
}  # fmt: skip


@pytest.mark.parametrize("form", EVENTS)
@pytest.mark.parametrize("begun", [False, True])
def test_an_event_of_kind_error_has_the_class_of_its_status(emulator_of, streamed_way, form, begun):
    told, status, kind = EVENTS[form]
    first = [{"choices": [{"index": 0, "delta": {"content": "Hi"}}]}] if begun else []
    answer = event_stream(*first)
    event = b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"
    emulator = emulator_of("openai-compatible")
    emulator.script(replace(answer, steps=(*answer.steps, event)))
    error = refused(emulator, "openai-compatible", streamed_way, options={"max_retries": 0})
    assert (type(error), error.status_code) == (kind, status)
    assert "m-42" in str(error)
    assert error.partial.text == ("Hi" if begun else "")


@pytest.mark.parametrize(
    ("provider", "status"), [("ollama", 500), ("lmstudio", 400), ("openai-compatible", 500)]
)
def test_a_server_that_no_longer_runs_the_model_is_not_asked_again(emulator_of, way, provider, status):
    told = "error loading model: error loading model architecture: unknown model architecture: 'mllama'"
    emulator = emulator_of("openai-compatible")
    emulator.dialect = Refusing(json_answer({"error": {"message": told, "type": "api_error"}}, status))
    error = refused(emulator, provider, way)
    assert (type(error), error.retryable) == (ModelNotFoundError, False)
    assert told in str(error)
    assert "Use provider='local', or SGLang" in str(error)
    assert ("0.24 is the last version of Ollama" in str(error)) is (provider == "ollama")
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(("provider", "version"), [("ollama", "0.24"), ("vllm", "0.10")])
def test_retired_servers_are_marked_with_the_last_version_that_works(provider, version):
    assert all(
        f"{version} is the last version" in model.deprecation for model in find_provider(provider).models
    )


def test_a_prompt_that_is_too_long_for_a_retired_server_is_not_told_that_it_is_retired(emulator_of, way):
    emulator = emulator_of("openai-compatible")
    emulator.dialect = Refusing(OVERFLOWS["vLLM"][0])
    error = refused(emulator, "vllm", way)
    assert type(error) is ContextTooLongError
    assert "last version" not in str(error)


class Refusing:
    """A host that has none of these models any more."""

    base_path = ""

    def __init__(self, answer):
        self.answer = answer

    def refuse(self, received, api_key):
        return self.answer

    def headers(self, received):
        return {}


IDS = {
    "x-inference-id": "aimlapi",
    "cf-ray": "cloudflare",
    "cf-aig-log-id": "cloudflare",
    "x-request-id": "aigateway",
}


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("form", ["status", "behind a 200", "later"])
def test_quirk_56_the_id_for_the_support_is_in_the_error(emulator_of, way, name, form):
    emulator = emulator_of(IDS[name])
    failed = {"error": {"message": "no", "code": 400}}
    began = {"response": "Hi", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    answer = json_answer(failed, 400 if form == "status" else 200, {name: "id-42"})
    later = event_stream(began, failed, headers={name: "id-42"})
    emulator.script(either(answer, later if form == "later" else answer))
    assert refused(emulator, IDS[name], way).request_id == "id-42"


def test_quirk_56_the_id_may_stand_in_the_body_of_the_error(emulator_of, way):
    emulator = emulator_of("openai-compatible")
    emulator.script(json_answer(SHAPES["flat"] | {"requestId": "id-42"}, 400))
    assert refused(emulator, "openai-compatible", way).request_id == "id-42"


@pytest.mark.parametrize("provider", ["aimlapi", "cloudflare", "aigateway"])
def test_quirk_56_the_id_is_in_each_reply_too(emulator_of, way, provider):
    emulator = emulator_of(provider)
    assert ask(emulator, provider, way).request_id

"""Statuses, waiting, asking again, and keys."""

import itertools
import time
import traceback
from dataclasses import replace
from email.utils import formatdate

import httpx
import pytest

from llama_vision import PROVIDERS, ChatRequest, Message, Text, find_provider
from llama_vision.backends import create_backend
from llama_vision.core.errors import (
    ConfigurationError,
    InvalidRequestError,
    LlamaVisionError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StatusError,
)
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import (
    ACCOUNT_ID,
    NO_ANSWER,
    STALL,
    Answer,
    Wait,
    chunks,
    completion,
    event_stream,
    json_answer,
    page,
)
from tests.quirks.talk import WAYS, ask

HELLO = "Hello! How can I help you today?"
STREAM = (*chunks(completion("Hi there")), "[DONE]")
FAILED = {
    "cloudflare": (
        {"success": False, "result": {}, "errors": [{"code": 5006, "message": "oh no"}], "messages": []},
        InvalidRequestError,
        400,
    ),
    "openrouter": ({"error": {"code": 502, "message": "oh no"}}, ServerError, 502),
    "aimlapi": ({"message": "oh no", "statusCode": "429", "requestId": "r"}, RateLimitError, 429),
    "vllm": ({"object": "error", "message": "oh no", "code": 400}, InvalidRequestError, 400),
}
HOSTED_HERE = ("deepinfra", "aimlapi", "aigateway", "cloudflare")


def waits(emulator) -> list[float]:
    return [later.at - earlier.at for earlier, later in itertools.pairwise(emulator.requests)]


def host_of(emulator_of, provider):
    """An emulator that lets a provider's model in; others than those emulated speak chat completions."""
    return emulator_of(provider if provider in HOSTED_HERE else "openai-compatible")


def model_for(provider):
    return {"model": find_provider("deepinfra").models[0].id} if provider not in HOSTED_HERE else {}


def test_quirk_01_a_201_is_a_success(emulator_of, way):
    assert ask(emulator_of("aimlapi"), "aimlapi", way).text == HELLO


@pytest.mark.parametrize("status", [200, 201, 202, 203])
def test_quirk_01_any_2xx_is_a_success(emulator_of, way, status):
    emulator = emulator_of("deepinfra")
    answer = event_stream(*STREAM) if "stream" in way else json_answer(completion("Hi there"))
    emulator.script(replace(answer, status=status))
    assert ask(emulator, "deepinfra", way).text == "Hi there"


@pytest.mark.parametrize("form", ["json", "event"])
@pytest.mark.parametrize("provider", FAILED)
def test_quirk_02_a_200_may_be_a_failure(emulator_of, way, provider, form):
    body, kind, status = FAILED[provider]
    emulator = host_of(emulator_of, provider)
    emulator.script(json_answer(body) if form == "json" or "stream" not in way else event_stream(body))
    with pytest.raises(kind, match="oh no") as caught:
        ask(emulator, provider, way, options={"max_retries": 0}, **model_for(provider))
    assert caught.value.status_code == status


@pytest.mark.parametrize("label", ["application/json", "text/event-stream", "text/plain"])
def test_quirk_03_a_stream_may_be_answered_whole(emulator_of, streamed_way, label):
    native = {"result": {"response": "Hi there"}, "success": True, "errors": [], "messages": []}
    for provider, body in (("deepinfra", completion("Hi there")), ("cloudflare", native)):
        emulator = emulator_of(provider)
        emulator.script(json_answer(body, headers={"content-type": label}))
        assert ask(emulator, provider, streamed_way).text == "Hi there"


@pytest.mark.parametrize("label", ["text/plain", "application/json", "application/octet-stream"])
def test_quirk_03_a_stream_may_be_labelled_as_something_else(emulator_of, streamed_way, label):
    emulator = emulator_of("deepinfra")
    emulator.script(event_stream(*STREAM, headers={"content-type": label}))
    assert ask(emulator, "deepinfra", streamed_way).text == "Hi there"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (page("<html><head><title>502 Bad\nGateway</title></head></html>", 502), "502: 502 Bad"),
        (Answer((b"upstream request timeout",), 504), "504: upstream request timeout"),
        (Answer((), 503, {"content-length": "0"}), "503: no explanation was given"),
        (Answer((b'{"error": {"mess',), 500), "500: .*mess"),
        (Answer((b"\xff\xfe\x00",), 500), "500: "),
    ],
    ids=["page", "text", "nothing", "half of a JSON text", "no text"],
)
def test_quirk_04_an_error_that_is_no_json_keeps_its_status(emulator_of, way, answer, shown):
    emulator = emulator_of("deepinfra")
    emulator.script(answer)
    with pytest.raises(ServerError, match=shown) as caught:
        ask(emulator, "deepinfra", way, options={"max_retries": 0})
    assert caught.value.status_code == answer.status


def test_quirk_05_keep_alive_comments_keep_a_time_out_from_firing(emulator_of, streamed_way):
    emulator = emulator_of("aigateway")
    emulator.script(event_stream(*(b": keep-alive\n\n", Wait(0.4)) * 4, *STREAM))
    begun = time.monotonic()
    assert ask(emulator, "aigateway", streamed_way, options={"timeout": 1.2}).text == "Hi there"
    assert time.monotonic() - begun > 1.5  # longer than the time-out, which counts from byte to byte


def test_quirk_05_a_queue_that_says_nothing_runs_into_the_time_out(emulator_of, streamed_way):
    emulator = emulator_of("aigateway")
    emulator.script(event_stream(b": keep-alive\n\n", STALL))
    with pytest.raises(RequestTimeoutError):
        ask(emulator, "aigateway", streamed_way, options={"timeout": 0.3})


def test_quirk_05_cloudflare_can_be_told_to_refuse_rather_than_to_queue(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.script(emulator.refusal(429, code=3040))
    with pytest.raises(RateLimitError, match="Capacity"):
        ask(
            emulator,
            "cloudflare",
            way,
            options={"max_retries": 0},
            extra_body={"options": {"rejectIfBusy": True}},
        )
    assert emulator.requests[0].body["options"] == {"rejectIfBusy": True}


@pytest.mark.parametrize("code", [3007, 3008])
def test_quirk_12_a_408_is_asked_again(emulator_of, way, code):
    emulator = emulator_of("cloudflare")
    emulator.script(emulator.refusal(408, code=code, retry_after=0), completion("at last"))
    assert ask(emulator, "cloudflare", way).text == "at last"
    assert len(emulator.requests) == 2


@pytest.mark.parametrize(
    ("wish", "least", "most"),
    [("", 0.25, 3), (0.7, 0.7, 3), (lambda: formatdate(time.time() + 2, usegmt=True), 0.9, 4), ("soon", 0.25, 3)],
    ids=["none", "seconds", "date", "unreadable"],
)  # fmt: skip
@pytest.mark.slow_beyond(4)
def test_quirk_13_retry_after_is_kept_to_in_either_form_and_may_be_missing(
    emulator_of, way, wish, least, most
):
    emulator = emulator_of("aigateway")
    emulator.script(
        emulator.refusal(429, retry_after=wish() if callable(wish) else wish), completion("at last")
    )
    assert ask(emulator, "aigateway", way).text == "at last"
    (wait,) = waits(emulator)
    assert least <= wait < most


def test_quirk_13_nobody_waits_for_an_hour_without_being_told(emulator_of, way):
    emulator = emulator_of("aigateway")
    emulator.script(emulator.refusal(429, retry_after=3600))
    with pytest.raises(RateLimitError) as caught:
        ask(emulator, "aigateway", way)
    assert caught.value.retry_after == 3600
    assert len(emulator.requests) == 1


NAMES = [(provider, name) for provider in HOSTED_HERE for name in PROVIDERS[provider].key_env]


@pytest.mark.parametrize(("provider", "name"), NAMES, ids=[name for _, name in NAMES])
def test_quirk_54_a_key_is_found_under_each_of_its_names_and_stripped(
    emulator_of, monkeypatch, provider, name
):
    emulator = emulator_of(provider)
    emulator.api_key = "jwt:eyJh.eyJz.c2ln"  # DeepInfra's scoped keys have a colon
    monkeypatch.setenv(name, f"  {emulator.api_key}\r\n")
    account = {"account_id": ACCOUNT_ID} if provider == "cloudflare" else {}
    models = (
        ChatLlamaVision(provider=provider, base_url=emulator.base_url, **account),
        LlamaVision(provider=provider, api_base=emulator.base_url, **account),
    )
    assert [models[0].invoke("Hello!").text, models[1].complete("Hello!").text] == [HELLO, HELLO]
    for model in models:
        assert "eyJh" not in f"{model!r}{model}"
    assert emulator.requests[0].headers["authorization"] == "Bearer jwt:eyJh.eyJz.c2ln"


@pytest.mark.parametrize("name", PROVIDERS["cloudflare"].account_env)
def test_quirk_54_an_account_is_found_under_each_of_its_names(emulator_of, monkeypatch, name):
    emulator = emulator_of("cloudflare")
    monkeypatch.setenv(name, f" {ACCOUNT_ID}\n")
    backend = create_backend(
        find_provider("cloudflare"), base_url=emulator.base_url, api_key=emulator.api_key
    )
    model = find_provider("cloudflare").models[0].id
    assert backend.complete(ChatRequest(model, (Message("user", (Text("Hello!"),)),))).text == HELLO


def test_quirk_54_a_key_with_a_line_break_inside_is_refused_and_not_shown(emulator_of, way):
    key = "sk-31415926\nsk-27182818"
    with pytest.raises(ConfigurationError) as caught:
        ask(emulator_of("deepinfra"), "deepinfra", way, options={"api_key": key})
    assert "sk-" not in "".join(traceback.format_exception(caught.value))


def test_quirk_54_a_redirect_does_not_take_the_key_to_another_host(emulator_of, emulator):
    elsewhere = emulator_of("aimlapi")
    elsewhere.api_key = None
    moved = Answer((), 307, {"location": f"{elsewhere.base_url}/chat/completions", "content-length": "0"})
    emulator.script(moved, moved)
    with pytest.raises(StatusError, match="307"):
        ask(emulator, "deepinfra", "complete")
    assert elsewhere.requests == []
    with (
        httpx.Client(follow_redirects=True) as client,  # the user's own, who wants it so
        pytest.raises(LlamaVisionError),
    ):
        ask(emulator, "deepinfra", "complete", options={"http_client": client})
    assert "authorization" not in elsewhere.requests[0].headers


def test_quirk_55_a_call_that_timed_out_may_be_billed_and_is_not_made_again(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(Answer((STALL,), status=None))
    with pytest.raises(RequestTimeoutError) as caught:
        ask(emulator, "deepinfra", way, options={"timeout": 0.4, "max_retries": 2})
    assert caught.value.retryable  # for a caller who wants that
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, "nobody"])
def test_quirk_55_a_call_that_was_not_answered_is_made_again(emulator_of, status):
    emulator = emulator_of("deepinfra")
    for way in WAYS:
        failure = NO_ANSWER if status == "nobody" else emulator.refusal(status, retry_after=0)
        emulator.script(failure, completion("at last"))
        assert ask(emulator, "deepinfra", way).text == "at last"
    assert len(emulator.requests) == 8

"""Addresses that contain an account: its id is needed, checked, and not repeated in errors; and models that are no more."""

import traceback
from dataclasses import replace

import pytest

from llama_vision import find_provider
from llama_vision.backends import create_backend
from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    LlamaVisionError,
    ModelNotFoundError,
    ServerError,
    StatusError,
)
from tests.emulator import ACCOUNT_ID, Answer, Emulator, event_stream, json_answer, page
from tests.emulator.asking import WAYS, ask, backend_for, question

OTHER_ID = "fedcba9876543210fedcba9876543210"
BROKEN_STREAM = event_stream({"response": "Hi"}, f"{{broken /accounts/{ACCOUNT_ID}")
FAILURE = {
    "success": False,
    "errors": [{"code": 7003, "message": f"Could not route to /accounts/{ACCOUNT_ID}"}],
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def emulator(emulator_of, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    for name in find_provider("cloudflare").account_env:
        monkeypatch.delenv(name, raising=False)
    return emulator_of("cloudflare")


def asked(provider: str = "cloudflare"):
    return replace(question(), model=find_provider(provider).models[0].id)


def everything_said(error: LlamaVisionError) -> str:
    return "".join([*traceback.format_exception(error), repr(error), str(error.args), repr(vars(error))])


@pytest.mark.parametrize("provider", ["cloudflare", "cloudflare-openai"])
@pytest.mark.parametrize("given", [None, "", "  "])
def test_a_missing_account_names_every_variable(emulator, way, provider, given):
    with pytest.raises(
        ConfigurationError, match=r"account_id=.*CLOUDFLARE_ACCOUNT_ID, CF_ACCOUNT_ID. \[cloudflare"
    ):
        ask(backend_for(emulator, provider, account_id=given), way, asked())
    assert emulator.requests == []


@pytest.mark.parametrize("bad", ["a/../b", "a b", "a?x=1", "a\nb", "ä", "{account}", "a#b", "."])
def test_an_id_that_can_be_no_part_of_an_address_is_refused(emulator, bad, monkeypatch):
    with pytest.raises(ConfigurationError, match="consists of letters"):
        backend_for(emulator, "cloudflare", account_id=bad)
    monkeypatch.setenv("CF_ACCOUNT_ID", bad)
    with pytest.raises(ConfigurationError, match="consists of letters"):
        ask(backend_for(emulator, "cloudflare"), "complete", asked())
    assert emulator.requests == []


@pytest.mark.parametrize("name", ["CLOUDFLARE_ACCOUNT_ID", "CF_ACCOUNT_ID"])
def test_the_account_is_looked_for_when_a_call_is_made(emulator, way, name, monkeypatch):
    backend = backend_for(emulator, "cloudflare")
    monkeypatch.setenv(name, f" {ACCOUNT_ID}\n")
    assert ask(backend, way, asked()).text
    assert emulator.requests[0].path == f"/client/v4/accounts/{ACCOUNT_ID}/ai/run/{asked().model}"


def test_an_account_that_was_given_goes_before_the_environment(emulator, monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", OTHER_ID)
    assert ask(backend_for(emulator, "cloudflare", account_id=ACCOUNT_ID), "complete", asked()).text


@pytest.mark.parametrize("provider", ["deepinfra", "local", "openai-compatible"])
def test_an_account_for_who_has_none_is_refused(provider):
    with pytest.raises(ConfigurationError, match="has no account_id; leave it out"):
        create_backend(find_provider(provider), account_id=ACCOUNT_ID, base_url="http://127.0.0.1:9")


def test_a_wrong_account_is_an_error_that_says_so_without_showing_it(emulator, way):
    # Cloudflare repeats the whole path.
    with pytest.raises(
        ModelNotFoundError, match=r"7003: Could not route to .*\[account\].*Check the account id"
    ) as caught:
        ask(backend_for(emulator, "cloudflare", account_id=OTHER_ID), way, asked())
    assert OTHER_ID not in everything_said(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        json_answer(FAILURE, 404),
        json_answer(FAILURE),
        event_stream(FAILURE),
        page(f"<title>No /accounts/{ACCOUNT_ID}</title>", 404),
        page(f"<title>No /accounts/{ACCOUNT_ID}</title>"),
        Answer((b"x" * 490 + ACCOUNT_ID.encode(),), 400),
        BROKEN_STREAM,
    ],
    ids=["status", "behind a 200", "in a stream", "page", "page behind a 200", "cut in two", "unreadable"],
)  # fmt: skip
def test_no_error_shows_the_account_even_if_the_server_repeats_it(emulator, way, answer):
    emulator.script(answer)
    with pytest.raises(LlamaVisionError) as caught:
        ask(backend_for(emulator, "cloudflare", account_id=ACCOUNT_ID, max_retries=0), way, asked())
    assert ACCOUNT_ID not in everything_said(caught.value)
    assert ACCOUNT_ID[:10] not in everything_said(caught.value)


def test_a_key_for_another_account_is_a_wrong_key(emulator, way):
    with pytest.raises(AuthenticationError, match="10000: Authentication error"):
        ask(backend_for(emulator, "cloudflare", account_id=ACCOUNT_ID, api_key="wrong"), way, asked())


def test_a_backend_does_not_show_the_account(emulator):
    assert ACCOUNT_ID not in repr(backend_for(emulator, "cloudflare", account_id=ACCOUNT_ID))


RETIRED = "AI/ML API lists it as deprecated"


@pytest.mark.parametrize(("status", "kind"), [(404, ModelNotFoundError), (400, InvalidRequestError)])
@pytest.mark.parametrize("model", find_provider("aimlapi").models, ids=lambda model: model.name)
def test_where_a_model_is_no_more_the_error_says_so(emulator_of, way, model, status, kind):
    emulator = emulator_of("aimlapi")
    emulator.script(emulator.refusal(status, "no such model"))
    with pytest.raises(kind, match=f"^{status}: no such model {RETIRED}") as caught:
        ask(backend_for(emulator, "aimlapi"), way, replace(question(), model=model.id))
    assert not caught.value.retryable
    assert len(emulator.requests) == 1


def test_an_error_that_has_another_reason_does_not_speak_of_it(emulator_of, way):
    emulator = emulator_of("aimlapi")
    emulator.script(emulator.refusal(503, "busy"))
    with pytest.raises(ServerError) as caught:
        ask(backend_for(emulator, "aimlapi", max_retries=0), way, asked("aimlapi"))
    assert RETIRED not in everything_said(caught.value)


def test_a_model_that_is_not_in_the_record_is_not_called_retired(emulator_of, way):
    emulator = emulator_of("aimlapi")
    with pytest.raises(StatusError) as caught:
        ask(backend_for(emulator, "aimlapi"), way, replace(question(), model="meta-llama/another"))
    assert RETIRED not in everything_said(caught.value)

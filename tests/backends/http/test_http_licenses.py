"""A license is accepted only when it is asked for, once, and the next call tells whether it counted."""

from dataclasses import replace

import pytest

from llama_vision import find_provider
from llama_vision.backends.http.backend import HttpBackend
from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    LicenseNotAcceptedError,
    RateLimitError,
    ServerError,
)
from tests.emulator import ACCOUNT_ID, NO_ANSWER, Answer, Emulator, completion, json_answer, page
from tests.emulator.asking import WAYS, ask, backend_for, question

QUESTION = replace(question(), model=find_provider("cloudflare").models[0].id)
AGREED = {"prompt": "agree"}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def emulator(emulator_of) -> Emulator:
    return emulator_of("cloudflare")


def backend(emulator: Emulator, provider: str = "cloudflare", **options) -> HttpBackend:
    options = {"account_id": ACCOUNT_ID, "accept_license": True, "max_retries": 0, **options}
    opened = backend_for(emulator, provider, **options)
    assert isinstance(opened, HttpBackend)
    return opened


def agreements(emulator: Emulator) -> list[bool]:
    return [received.body == AGREED for received in emulator.requests]


@pytest.mark.parametrize("provider", ["cloudflare", "cloudflare-openai"])
def test_a_license_is_accepted_on_demand_and_the_call_made_again(emulator, way, provider):
    emulator.dialect.license_accepted = False
    assert ask(backend(emulator, provider), way, QUESTION).text == "Hello! How can I help you today?"
    assert agreements(emulator) == [False, True, False]
    first, agreement, second = emulator.requests
    assert first.content == second.content
    assert agreement.path == f"/client/v4/accounts/{ACCOUNT_ID}/ai/run/{QUESTION.model}"
    assert agreement.headers["authorization"] == f"Bearer {emulator.api_key}"


def test_once_accepted_it_is_not_accepted_again(emulator, way):
    emulator.dialect.license_accepted = False
    asking = backend(emulator)
    for _ in range(2):
        ask(asking, way, QUESTION)
    assert agreements(emulator) == [False, True, False, False]


def test_nothing_is_accepted_where_nothing_has_to_be(emulator, way):
    ask(backend(emulator), way, QUESTION)
    assert agreements(emulator) == [False]


@pytest.mark.parametrize("provider", ["cloudflare", "cloudflare-openai"])
def test_no_license_is_accepted_unasked(emulator, way, provider):
    emulator.dialect.license_accepted = False
    with pytest.raises(LicenseNotAcceptedError, match=r"accept_license=True.*\[cloudflare") as caught:
        ask(backend(emulator, provider, accept_license=False, max_retries=5), way, QUESTION)
    assert agreements(emulator) == [False]
    assert not emulator.dialect.license_accepted
    assert not caught.value.retryable


def test_a_license_that_does_not_help_is_accepted_once(emulator, way):
    refused = emulator.refusal(403, code=5016)
    emulator.script(refused, completion("?"), refused)
    with pytest.raises(LicenseNotAcceptedError):
        ask(backend(emulator, max_retries=5), way, QUESTION)
    assert agreements(emulator) == [False, True, False]


@pytest.mark.parametrize(
    "answer",
    [
        page("<title>Thank you</title>"),
        page("<title>Bad Gateway</title>", 502),
        json_answer({"result": None, "success": True, "errors": []}),
        json_answer({"success": False, "errors": [{"code": 5016, "message": "agreed"}]}, 403),
        json_answer({"success": False, "errors": [{"code": 5006, "message": "bad input"}]}, 400),
        Answer((b"",), headers={"content-length": "0"}),
    ],
    ids=["page", "broken", "null", "403", "400", "nothing"],
)
def test_what_an_agreement_is_answered_with_does_not_matter(emulator, way, answer):
    # It is documented nowhere.
    emulator.script(emulator.refusal(403, code=5016), answer, completion("at last"))
    assert ask(backend(emulator), way, QUESTION).text == "at last"


@pytest.mark.parametrize(
    ("status", "code", "kind"), [(401, 10000, AuthenticationError), (429, 3040, RateLimitError)]
)
def test_an_agreement_that_was_not_heard_is_an_error(emulator, way, status, code, kind):
    emulator.script(emulator.refusal(403, code=5016), emulator.refusal(status, code=code))
    with pytest.raises(kind, match=rf"^{status}: {code}: .*\[cloudflare, @cf/meta"):
        ask(backend(emulator), way, QUESTION)


def test_an_agreement_that_did_not_arrive_is_an_error(emulator, way):
    emulator.script(emulator.refusal(403, code=5016), NO_ANSWER)
    with pytest.raises(ConnectionFailedError):
        ask(backend(emulator), way, QUESTION)


def test_an_agreement_takes_no_retry_away(emulator, way):
    busy = emulator.refusal(503, retry_after=0)
    emulator.script(busy, emulator.refusal(403, code=5016), completion("?"), busy)
    with pytest.raises(ServerError):
        ask(backend(emulator, max_retries=1), way, QUESTION)
    emulator.script(busy, emulator.refusal(403, code=5016), completion("?"), completion("at last"))
    assert ask(backend(emulator, max_retries=1), way, QUESTION).text == "at last"


def test_a_provider_without_a_license_accepts_none(emulator_of, way):
    # Any endpoint may be Cloudflare's, and answer with its code.
    host = emulator_of("openai-compatible")
    body = {"success": False, "errors": [{"code": 5016, "message": "submit 'agree'"}]}
    host.script(json_answer(body, 403))
    with pytest.raises(LicenseNotAcceptedError):
        ask(backend_for(host, "openai-compatible", accept_license=True), way)
    assert len(host.requests) == 1


def test_a_license_can_be_accepted_by_itself(emulator):
    emulator.dialect.license_accepted = False
    asking = backend(emulator, accept_license=False)
    asking.accept_license(QUESTION)
    assert emulator.dialect.license_accepted
    ask(asking, "complete", QUESTION)
    assert agreements(emulator) == [True, False]


def test_a_license_that_can_not_be_accepted_by_itself_says_why(emulator):
    with pytest.raises(AuthenticationError):
        backend(emulator, api_key="wrong").accept_license(QUESTION)


def test_there_is_nothing_to_accept_at_other_providers(emulator_of):
    host = emulator_of("deepinfra")
    asking = backend_for(host)
    assert isinstance(asking, HttpBackend)
    with pytest.raises(ConfigurationError, match=r"DeepInfra has no license to accept. \[deepinfra"):
        asking.accept_license(question())
    assert host.requests == []

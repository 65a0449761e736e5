"""The key goes to the provider and nowhere else."""

import asyncio
import logging
import os
import traceback
from dataclasses import replace

import pytest

from llama_vision import find_provider
from llama_vision.backends import create_backend
from llama_vision.core.errors import ConfigurationError, LlamaVisionError, MissingKeyError, StatusError
from tests.emulator import (
    NO_ANSWER,
    Answer,
    Emulator,
    chunks,
    completion,
    event_stream,
    json_answer,
    page,
    refusal,
    sse,
)
from tests.emulator.asking import WAYS, ask, backend_for, question

KEY = "sk-0123456789-abcdefghij-0123456789"
BEGINNING = list(chunks(completion("Hello there")))[:-1]


def padded(length: int) -> str:
    """A message in which the key begins so late that shortening may cut it in two."""
    return "x" * length + KEY


ECHOES = {
    "status": refusal(
        401, {"error": {"message": f"Invalid key {KEY}", "headers": {"authorization": f"Bearer {KEY}"}}}
    ),
    "page": page(f"<title>Forbidden {KEY}</title>", 403),
    "text": Answer((f"no such key: {KEY}".encode(),), 400),
    "server failure": refusal(500, {"detail": f"{KEY} has no account"}),
    "cut status": refusal(422, {"detail": padded(475)}),
    "error behind a 200": json_answer({"error": {"message": f"Invalid key {KEY}", "code": 401}}),
    "page behind a 200": page(f"<html>{KEY}</html>"),
    "cut page behind a 200": page(f"<html>{padded(180)}</html>"),
    "cut error behind a 200": json_answer({"error": {"text": padded(470)}}),
    "error in the stream": event_stream(
        *BEGINNING, sse({"error": {"message": f"Invalid key {KEY}", "code": 401}})
    ),
    "named error in the stream": event_stream(*BEGINNING, b"event: error\n" + sse(f'"{KEY}"')),
    "unreadable event": event_stream(*BEGINNING, f"data: {{{KEY}\n\n".encode()),
    "cut unreadable event": event_stream(*BEGINNING, f"data: {{{padded(185)}\n\n".encode()),
    "hung up": NO_ANSWER,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def no_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("deepinfra", "openai-compatible"):
        for name in find_provider(provider).key_env:
            monkeypatch.delenv(name, raising=False)


def everything_said(error: LlamaVisionError) -> str:
    """All that an error shows wherever it is printed, logged or sent to."""
    return "".join(
        [*traceback.format_exception(error), str(error), repr(error), str(error.args), repr(vars(error))]
    )


@pytest.mark.parametrize("name", ECHOES)
def test_an_error_does_not_show_the_key_even_if_the_server_repeats_it(
    emulator: Emulator, way: str, name: str
):
    emulator.api_key = KEY
    emulator.script(ECHOES[name])
    with pytest.raises(LlamaVisionError) as caught:
        ask(backend_for(emulator, api_key=KEY, max_retries=0), way)
    said = everything_said(caught.value)
    assert KEY not in said
    assert KEY[:8] not in said


@pytest.mark.parametrize("given", [f" {KEY}\n", f"{KEY} "])
def test_white_space_around_a_key_is_not_sent_and_does_not_uncover_it(
    emulator: Emulator, way: str, given: str
):
    emulator.api_key = KEY
    emulator.script(ECHOES["status"])
    with pytest.raises(LlamaVisionError) as caught:
        ask(backend_for(emulator, api_key=given), way)
    assert emulator.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in everything_said(caught.value)


@pytest.mark.parametrize("name", ["status", "error behind a 200"])
def test_a_key_from_the_environment_is_not_shown_either(
    emulator: Emulator, way: str, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DEEPINFRA_TOKEN", KEY)
    emulator.api_key = KEY
    emulator.script(ECHOES[name])
    with pytest.raises(LlamaVisionError) as caught:
        ask(backend_for(emulator, api_key=None), way)
    assert emulator.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in everything_said(caught.value)


def test_the_words_around_a_hidden_key_are_kept(emulator: Emulator):
    emulator.api_key = KEY
    emulator.script(ECHOES["status"])
    with pytest.raises(StatusError, match="401: Invalid key") as caught:
        ask(backend_for(emulator, api_key=KEY), "complete")
    assert caught.value.status_code == 401


def test_a_reply_that_holds_the_key_is_not_changed(emulator: Emulator, way: str):
    emulator.api_key = KEY
    emulator.script(completion(f"Your key is {KEY}."))
    assert ask(backend_for(emulator, api_key=KEY), way).text == f"Your key is {KEY}."


def test_a_backend_does_not_show_its_key(emulator: Emulator):
    backend = backend_for(emulator, api_key=KEY)
    assert KEY not in repr(backend)
    assert "deepinfra" in repr(backend)


def test_no_log_shows_the_key(emulator: Emulator, way: str, caplog: pytest.LogCaptureFixture):
    emulator.api_key = KEY
    caplog.set_level(logging.DEBUG)
    emulator.script(refusal(503, retry_after=0), completion("at last"))
    ask(backend_for(emulator, api_key=KEY), way)
    assert {record.name.partition(".")[0] for record in caplog.records} >= {"httpx", "httpcore"}
    assert KEY not in caplog.text


def test_without_a_key_nothing_is_sent(emulator: Emulator, way: str):
    with pytest.raises(
        MissingKeyError, match=r"DEEPINFRA_TOKEN, DEEPINFRA_API_KEY, DEEPINFRA_API_TOKEN.*https://"
    ):
        ask(backend_for(emulator, api_key=None), way)
    assert emulator.requests == []


def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(emulator: Emulator, way: str):
    with pytest.raises(ConfigurationError) as caught:
        ask(backend_for(emulator, api_key=f"{KEY}\n{KEY}"), way)
    assert KEY not in everything_said(caught.value)
    assert emulator.requests == []


def test_a_header_that_cannot_be_sent_is_refused_without_being_shown(emulator: Emulator, way: str):
    with pytest.raises(ConfigurationError) as caught:
        ask(backend_for(emulator, headers={"x-api-key": f"{KEY}\nx: y"}), way)
    assert KEY not in everything_said(caught.value)
    assert emulator.requests == []


def test_an_endpoint_that_needs_no_key_gets_none(emulator: Emulator, way: str):
    emulator.api_key = None
    ask(backend_for(emulator, "openai-compatible", api_key=None), way)
    assert "authorization" not in emulator.requests[0].headers


def test_the_keys_of_other_companies_are_not_sent_to_any_endpoint(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
):
    emulator.api_key = None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("DEEPINFRA_TOKEN", KEY)
    ask(backend_for(emulator, "openai-compatible", api_key=None), "complete")
    assert KEY not in str(emulator.requests[0].headers)


def test_the_key_is_looked_for_when_a_call_is_made(emulator: Emulator, monkeypatch: pytest.MonkeyPatch):
    backend = create_backend(find_provider("deepinfra"), base_url=emulator.base_url)
    monkeypatch.setenv("DEEPINFRA_API_KEY", emulator.api_key or "")
    assert os.environ["DEEPINFRA_API_KEY"]
    assert ask(backend, "complete").text


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_takes_neither_key_nor_question_to_another_host(
    emulator: Emulator, other_emulator: Emulator, way: str, status: int
):
    elsewhere = f"{other_emulator.base_url}/chat/completions"
    emulator.script(Answer((), status, {"location": elsewhere, "content-length": "0"}))
    with pytest.raises(StatusError, match=str(status)) as caught:
        ask(backend_for(emulator), way)
    assert caught.value.status_code == status
    assert other_emulator.requests == []
    assert len(emulator.requests) == 1


def test_asking_twice_sends_the_key_twice_and_not_more(emulator: Emulator):
    async def twice() -> None:
        backend = backend_for(emulator)
        await backend.acomplete(question())
        await backend.acomplete(question())

    asyncio.run(twice())
    assert [received.headers["authorization"] for received in emulator.requests] == [
        f"Bearer {emulator.api_key}"
    ] * 2


SPELLINGS = {
    "JSON's escapes": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "JSON's escapes, escaped": "".join(f"\\\\u{ord(letter):04X}" for letter in KEY),
    "some escapes": KEY.replace("-", "\\u002d"),
    "percent": "".join(f"%{ord(letter):02X}" for letter in KEY),
    "HTML": "".join(f"&#{ord(letter)};&#x{ord(letter):x};"[: 5 + (ord(letter) > 99)] for letter in KEY),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_an_error_does_not_show_the_key_in_any_spelling(emulator: Emulator, name: str):
    spelt = SPELLINGS[name]
    emulator.api_key = None
    body = b'{"error": {"message": "Invalid key ' + spelt.encode() + b'"}}'
    json_type = {"content-type": "application/json"}
    emulator.script(
        Answer((body,), 401, json_type), Answer((body,), 200, json_type), page(f"<title>{spelt}</title>", 400)
    )
    for _ in range(3):
        with pytest.raises(LlamaVisionError) as caught:
            ask(backend_for(emulator, api_key=KEY, max_retries=0), "complete")
        said = everything_said(caught.value)
        assert KEY not in said
        assert spelt not in said


@pytest.mark.parametrize("status", [200, 401])
def test_a_request_id_that_repeats_the_key_is_hidden(emulator: Emulator, way: str, status: int):
    emulator.api_key = None
    headers = {"x-request-id": f"for-{KEY}"}
    emulator.script(json_answer(completion("Hi") if status == 200 else {"error": "no"}, status, headers))
    backend = backend_for(emulator, api_key=KEY, max_retries=0)
    if status == 200:
        assert ask(backend, way).request_id == "for-[key]"
        return
    with pytest.raises(StatusError) as caught:
        ask(backend, way)
    assert caught.value.request_id == "for-[key]"


def token_source(*tokens: str):
    """A function that returns one token after the other, and the list of those asked for."""
    asked: list[str] = []

    def next_token() -> str:
        asked.append(tokens[min(len(asked), len(tokens) - 1)])
        return asked[-1]

    return next_token, asked


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_key_may_be_a_function_that_is_called_for_each_call(
    emulator: Emulator, way: str, asynchronous: bool
):
    next_token, asked = token_source("one", "two")

    async def next_token_later() -> str:
        await asyncio.sleep(0)
        return next_token()

    emulator.api_key = None
    backend = backend_for(emulator, api_key=next_token_later if asynchronous else next_token)
    if asynchronous and not way.startswith("a"):
        with pytest.raises(ConfigurationError, match="asynchronous"):
            ask(backend, way)
        return
    ask(backend, way)
    ask(backend, way)
    assert asked == ["one", "two"]
    sent = [request.headers["authorization"] for request in emulator.requests]
    assert sent == ["Bearer one", "Bearer two"]


def test_a_token_that_has_expired_is_asked_for_again_once(emulator: Emulator, way: str):
    emulator.api_key = "fresh"
    next_token, asked = token_source("stale", "fresh")
    assert ask(backend_for(emulator, api_key=next_token, max_retries=0), way).text
    assert asked == ["stale", "fresh"]
    always_stale, asked = token_source("stale", "staler")
    with pytest.raises(StatusError, match="401"):
        ask(backend_for(emulator, api_key=always_stale, max_retries=0), way)
    assert asked == ["stale", "staler"]


def test_the_same_token_is_not_sent_twice_and_a_key_is_not_asked_for_again(emulator: Emulator):
    same, asked = token_source("stale")
    for key in (same, "stale"):
        with pytest.raises(StatusError, match="401"):
            ask(backend_for(emulator, api_key=key, max_retries=0), "complete")
    assert asked == ["stale", "stale"]
    assert len(emulator.requests) == 2


@pytest.mark.parametrize("returned", [None, "", 5, ZeroDivisionError("with a secret-word")])
def test_a_function_that_gives_no_key_is_an_error_before_anything_is_sent(
    emulator: Emulator, way: str, returned
):
    def get_key():
        if isinstance(returned, Exception):
            raise returned
        return returned

    with pytest.raises(ConfigurationError, match="function given as api_key") as caught:
        ask(backend_for(emulator, api_key=get_key), way)
    assert "secret-word" not in str(caught.value)
    assert emulator.requests == []


def test_an_account_id_is_not_shown(emulator: Emulator):
    backend = create_backend(find_provider("cloudflare"), api_key=KEY, account_id="0123abcd")
    assert "0123abcd" not in f"{backend!r} {backend.__dict__!r}"


def test_a_record_says_which_header_holds_the_key(emulator: Emulator, way: str):
    emulator.api_key = None
    record = replace(find_provider("openai-compatible"), key_header="api-key", key_prefix="")
    ask(create_backend(record, base_url=emulator.base_url, api_key=KEY), way)
    headers = emulator.requests[0].headers
    assert headers["api-key"] == KEY
    assert "authorization" not in headers

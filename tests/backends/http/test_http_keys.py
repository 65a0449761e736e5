"""The key goes to the provider and nowhere else."""

import asyncio
import logging
import os
import traceback

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

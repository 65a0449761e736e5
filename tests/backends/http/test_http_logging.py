"""What the logger `llama_vision` is told of calls, and what it never is."""

import logging
import re

import pytest

from llama_vision import Image, Message, Text, find_provider, use_aiohttp
from llama_vision.backends import create_backend
from llama_vision.backends.http import call
from llama_vision.core.errors import ServerError
from llama_vision.core.request import ChatRequest
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.images.settings import ImageSettings
from tests.emulator import ACCOUNT_ID, Emulator, completion, json_answer, refusal
from tests.emulator.asking import WAYS, ask, backend_for
from tests.images.image_server import ImageServer, answer

KEY = "sk-live-0f1e2d3c4b5a69788796"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    caplog.set_level(logging.DEBUG)


def logged(caplog, level=logging.DEBUG):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "llama_vision" and record.levelno >= level
    ]


@pytest.mark.slow_beyond(1)
def test_a_retry_is_logged_with_its_wait(emulator: Emulator, way, caplog):
    emulator.api_key = KEY
    repeating = {"error": {"message": f"overloaded, {KEY}"}}
    emulator.script(refusal(503, retry_after=0.25), json_answer(repeating, 500), completion("Hi"))
    assert ask(backend_for(emulator), way).text == "Hi"
    first, second = logged(caplog, logging.INFO)
    assert first == "deepinfra: status 503, retrying in 0.25 s (2 attempts left)"
    told = re.fullmatch(r"deepinfra: status 500, retrying in (\d\.\d\d) s \(1 attempts left\)", second)
    assert told
    assert 0.5 <= float(told[1]) <= 1
    assert KEY not in caplog.text


def test_the_last_failure_is_raised_and_not_logged(emulator: Emulator, way, caplog):
    emulator.script(json_answer({}, 503))
    with pytest.raises(ServerError):
        ask(backend_for(emulator, max_retries=0), way)
    assert logged(caplog) == []


def test_a_host_that_knows_no_stream_options(emulator: Emulator, caplog, monkeypatch):
    monkeypatch.setattr(call, "_urls_without_stream_options", set())
    emulator.script(refusal(400, {"error": {"message": "stream_options?"}}), completion("Hi"))
    ask(backend_for(emulator), "stream")
    assert logged(caplog) == ["deepinfra rejects stream_options: asking again without"]


def test_a_license_that_is_accepted(emulator_of, caplog):
    emulator = emulator_of("cloudflare")
    emulator.api_key, emulator.dialect.license_accepted = KEY, False
    model = find_provider("cloudflare").models[0].id
    request = ChatRequest(model, (Message("user", (Text("Hello!"),)),))
    backend = backend_for(emulator, "cloudflare", account_id=ACCOUNT_ID, accept_license=True)
    ask(backend, "complete", request)
    assert logged(caplog) == [f"Accepting the license of {model} at cloudflare"]


def test_which_transport_asynchronous_clients_use(caplog):
    pytest.importorskip("httpx_aiohttp")
    use_aiohttp()
    use_aiohttp(enabled=False)
    assert logged(caplog) == [
        "New asynchronous clients use aiohttp",
        "New asynchronous clients use httpx's own transport",
    ]


def test_no_account_query_or_image_is_logged(emulator_of, way, caplog):
    emulator = emulator_of("cloudflare")
    emulator.api_key = KEY
    photo = SAMPLE_IMAGES["circle"].read_bytes()
    with ImageServer() as server:
        server.answers["/a.png?signature=secret"] = [answer(photo)]
        emulator.script(json_answer({"errors": [{"message": f"{KEY} {ACCOUNT_ID}"}]}, 500))
        backend = create_backend(
            find_provider("cloudflare"),
            base_url=emulator.base_url,
            api_key=KEY,
            account_id=ACCOUNT_ID,
            images=ImageSettings(fetch=FetchPolicy(private_networks=True)),
        )
        image = Image(url=server.url("/a.png?signature=secret"))
        model = find_provider("cloudflare").models[0].id
        ask(backend, way, ChatRequest(model, (Message("user", (image, Text("What?"))),)))
    download, retry = logged(caplog)
    url = f"'http://127.0.0.1:{server.port}/a.png'"
    assert re.fullmatch(rf"Downloaded {re.escape(url)}: {len(photo)} bytes in \d\.\d\d s", download)
    assert "status 500" in retry
    assert not [text for text in (KEY, ACCOUNT_ID, "secret", "PNG") if text in download + retry]
    assert KEY not in caplog.text

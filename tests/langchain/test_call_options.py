"""What a call says about its connection and its images: honoured, never in the body, and no key in a trace."""

import asyncio
import base64
import pickle
import time
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage
from pydantic import SecretStr

from llama_vision.core.errors import (
    ConfigurationError,
    LlamaVisionError,
    MissingKeyError,
    RequestTimeoutError,
    ServerError,
)
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from tests.emulator import STALL, Answer, Emulator, completion, refusal
from tests.emulator.asking import MODEL
from tests.langchain.weather import model_at

SECRET = "sk-of-a-gateway-31415"
WAYS = ("invoke", "ainvoke", "stream", "astream")


def ask(model: Any, way: str, message: Any = "Hi", **options: Any) -> Any:
    async def astream():
        return [chunk async for chunk in model.astream(message, **options)]

    match way:
        case "stream":
            return list(model.stream(message, **options))
        case "astream":
            return asyncio.run(astream())
        case "ainvoke":
            return asyncio.run(model.ainvoke(message, **options))
        case _:
            return model.invoke(message, **options)


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.seen.append(f"{serialized} {messages} {kwargs}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bound", [False, True], ids=["call", "bind"])
@pytest.mark.parametrize("name", ["timeout", "deadline"])
@pytest.mark.slow_beyond(2)
def test_a_call_has_a_timeout_of_its_own(emulator: Emulator, way: str, bound: bool, name: str):
    emulator.script(Answer((STALL,), status=None))
    model, options = model_at(emulator), {name: 0.2}
    if bound:
        model, options = model.bind(**options), {}
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        ask(model, way, **options)
    assert time.monotonic() - began < 2
    assert not {"timeout", "deadline"} & emulator.requests[0].body.keys()


@pytest.mark.parametrize("way", WAYS)
def test_a_call_has_headers_and_retries_of_its_own(emulator: Emulator, way: str):
    emulator.script(refusal(503, retry_after=0), completion("Hi"))
    model = model_at(emulator, default_headers={"X-Team": "maps", "x-more": "1"})
    ask(model, way, extra_headers={"x-team": "roads"}, max_retries=1)
    for request in emulator.requests:
        assert (request.headers["x-team"], request.headers["x-more"]) == ("roads", "1")
        assert not {"extra_headers", "max_retries"} & request.body.keys()
    assert len(emulator.requests) == 2
    emulator.always(refusal(503, retry_after=0))
    with pytest.raises(ServerError):
        ask(model_at(emulator).model_copy(update={"max_retries": 5}), way, max_retries=0)
    assert len(emulator.requests) == 3


def test_a_call_has_image_options_of_its_own(emulator: Emulator):
    image = {
        "type": "image",
        "base64": base64.b64encode(SAMPLE_IMAGES["circle"].read_bytes()).decode(),
        "mime_type": "image/png",
    }
    message = [HumanMessage([{"type": "text", "text": "What is it?"}, image])]
    ask(model_at(emulator), "invoke", message, image_format="jpeg", image_max_pixels=1000)
    assert "image/jpeg" in str(emulator.requests[0].body)
    assert "image_format" not in emulator.requests[0].body
    with pytest.raises(ConfigurationError, match="quality"):
        ask(model_at(emulator), "invoke", message, image_quality=1000)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"timeout": -1}, "timeout"),
        ({"max_retries": "many"}, "max_retries"),
        ({"extra_headers": "x: y"}, "extra_headers"),
        ({"extra_headers": {"x": "a\nb"}}, "header"),
        ({"max_completion_tokens": 5}, "Here it is max_tokens"),
        ({"request_timeout": 5}, "Here it is timeout"),
        ({"default_headers": {}}, "Here it is extra_headers"),
        ({"api_key": "k"}, "set on the model"),
        ({"prompt_cache_key": 5}, "extra_body"),
    ],
)
def test_an_option_that_cannot_be_says_what_to_do(emulator: Emulator, options: dict, match: str):
    with pytest.raises(LlamaVisionError, match=match):
        ask(model_at(emulator), "invoke", **options)
    assert emulator.requests == []


@pytest.mark.parametrize("way", WAYS)
def test_no_trace_shows_the_headers_of_a_call(emulator: Emulator, way: str):
    recorder = Recorder()
    config = {"callbacks": [recorder]}
    ask(model_at(emulator), way, extra_headers={"x-gateway": SECRET}, config=config)
    assert emulator.requests[0].headers["x-gateway"] == SECRET
    assert len(recorder.seen) == 1
    assert SECRET not in recorder.seen[0]
    assert SECRET not in model_at(emulator)._get_llm_string(extra_headers={"x-gateway": SECRET})


def test_an_account_id_is_hidden_and_kept():
    model = ChatLlamaVision(provider="cloudflare", api_key="k", account_id="0123abcd")
    shown = f"{model!r} {model} {dumps(model)} {model._identifying_params} {model._get_invocation_params()}"
    assert "0123abcd" not in shown
    assert pickle.loads(pickle.dumps(model)).account_id == "0123abcd"  # noqa: S301 - our own bytes
    assert model.model_copy().account_id == "0123abcd"


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        ({"api_key": "k"}, MissingKeyError, "pickled, which leaves api_key out"),
        ({"api_key": lambda: "k"}, MissingKeyError, "pickled, which leaves api_key out"),
        ({"default_headers": {"x": "y"}}, ConfigurationError, "default_headers"),
        ({"http_client": httpx.Client()}, ConfigurationError, "http_client"),
    ],
)
def test_a_pickled_model_says_what_it_has_lost(
    emulator: Emulator, monkeypatch, given: dict, kind: type, match: str
):
    monkeypatch.delenv("OPENAI_COMPATIBLE_API_KEY", raising=False)
    emulator.api_key = None
    model = ChatLlamaVision(provider="openai-compatible", model=MODEL, base_url=emulator.base_url, **given)
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model))))  # noqa: S301 - our own bytes
    with pytest.raises(kind, match=match):
        twice.invoke("Hi")
    assert emulator.requests == []
    assert model.invoke("Hi").text  # the original has kept it
    if "api_key" in given:
        twice.llama_vision_api_key = SecretStr("again")
        assert twice.invoke("Hi").text
        assert emulator.requests[-1].headers["authorization"] == "Bearer again"


@pytest.mark.parametrize("way", WAYS)
def test_a_key_may_be_a_function(emulator: Emulator, way: str):
    tokens = iter(["stale", emulator.api_key])
    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=lambda: next(tokens))
    assert ask(model, way)
    assert len(emulator.requests) == 2


@pytest.mark.parametrize(
    "options",
    [{"timeout": -1}, {"deadline": 0}, {"max_retries": -1}, {"base_url": "http://u:p@host/v1"}],
    ids=str,
)
def test_what_cannot_be_is_refused_when_the_model_is_made(options: dict):
    with pytest.raises(ConfigurationError):
        ChatLlamaVision(provider="deepinfra", **options)

"""What a call says about its connection: honoured, never in the body, and no key in an event."""

import asyncio
import pickle
import time
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import ChatMessage
from pydantic import PrivateAttr

from llama_vision.core.errors import (
    ConfigurationError,
    LlamaVisionError,
    MissingKeyError,
    RequestTimeoutError,
)
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal
from tests.emulator import STALL, Answer, Emulator, completion, refusal
from tests.llamaindex.cats import model_at

SECRET = "sk-of-a-gateway-31415"
WAYS = (
    "chat",
    "achat",
    "stream_chat",
    "astream_chat",
    "complete",
    "acomplete",
    "stream_complete",
    "astream_complete",
)
BOTH = pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])


def ask(model: Any, way: str, **options: Any) -> Any:
    prompt: Any = [ChatMessage("Hi")] if way.endswith("chat") else "Hi"

    async def aask():
        found = await getattr(model, way)(prompt, **options)
        return [item async for item in found] if way.startswith("astream") else found

    if way.startswith("a"):
        return asyncio.run(aask())
    found = getattr(model, way)(prompt, **options)
    return list(found) if way.startswith("stream") else found


class Events(BaseEventHandler):
    _seen: list[str] = PrivateAttr(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self._seen.append(f"{event!r} {event.model_dump()}")


@BOTH
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow_beyond(4)
def test_a_call_has_a_timeout_of_its_own(emulator: Emulator, way: str, model_class):
    emulator.script(Answer((STALL,), status=None))
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        ask(model_at(emulator, model_class=model_class), way, timeout=0.2)
    assert time.monotonic() - began < 2
    assert "timeout" not in emulator.requests[0].body


@pytest.mark.parametrize("way", WAYS)
def test_additional_kwargs_hold_options_of_the_connection_too(emulator: Emulator, way: str):
    emulator.script(refusal(503, retry_after=0), completion("Hi"))
    extra = {"max_retries": 1, "extra_headers": {"x-team": "maps"}, "top_p": 0.5, "mine": 1}
    ask(model_at(emulator, additional_kwargs=extra), way, extra_headers={"X-Team": "roads"})
    body = emulator.requests[1].body
    assert (body["top_p"], body["mine"]) == (0.5, 1)
    assert not {"max_retries", "extra_headers"} & body.keys()
    assert emulator.requests[1].headers["x-team"] == "roads"


@BOTH
@pytest.mark.parametrize("way", WAYS)
def test_no_event_shows_the_headers_of_a_call(emulator: Emulator, way: str, model_class):
    debug, events = LlamaDebugHandler(print_trace_on_end=False), Events()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(events)
    try:
        model = model_at(emulator, model_class=model_class, callback_manager=CallbackManager([debug]))
        ask(model, way, extra_headers={"x-gateway": SECRET})
    finally:
        dispatcher.event_handlers.remove(events)
    assert emulator.requests[0].headers["x-gateway"] == SECRET
    seen = [*events._seen, *(str(event.payload) for event in debug.get_events())]
    assert len(seen) >= 2
    assert not any(SECRET in text for text in seen)


@BOTH
def test_a_pickled_model_says_that_its_key_is_missing(emulator: Emulator, monkeypatch, model_class):
    monkeypatch.delenv("OPENAI_COMPATIBLE_API_KEY", raising=False)
    model = model_at(emulator, "openai-compatible", model_class=model_class)
    thawed = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    with pytest.raises(MissingKeyError, match="pickled, which leaves api_key out"):
        thawed.chat([ChatMessage("Hi")])
    assert emulator.requests == []
    assert model.chat([ChatMessage("Hi")]).message.content


@BOTH
def test_an_account_id_is_hidden_and_kept(model_class):
    model = model_class(provider="cloudflare", api_key="k", account_id="0123abcd")
    assert "0123abcd" not in f"{model!r} {model} {model.to_payload()}"
    thawed = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    for copy in (model_class.from_dict(model.to_dict()), thawed, model.model_copy()):
        assert copy.account_id == "0123abcd"


@pytest.mark.parametrize("way", WAYS)
def test_a_key_may_be_a_function(emulator: Emulator, way: str):
    tokens = iter(["stale", emulator.api_key])
    model = LlamaVision(provider="deepinfra", api_base=emulator.base_url, api_key=lambda: next(tokens))
    assert ask(model, way)
    assert len(emulator.requests) == 2


@pytest.mark.parametrize(
    "options",
    [{"timeout": -1}, {"deadline": 0}, {"max_retries": -1}, {"api_base": "http://u:p@host/v1"}],
    ids=str,
)
def test_what_cannot_be_is_refused_when_the_model_is_made(options: dict):
    with pytest.raises(ConfigurationError):
        LlamaVision(provider="deepinfra", **options)


def test_an_option_that_cannot_be_is_refused_at_once(emulator: Emulator):
    with pytest.raises(LlamaVisionError, match="timeout"):
        model_at(emulator).stream_chat([ChatMessage("Hi")], timeout=-1)

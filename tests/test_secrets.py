"""No key in anything that is shown, logged, raised, traced, saved or kept."""

import asyncio
import copy
import json
import logging
import pickle
import traceback

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler

from llama_vision.core.errors import LlamaVisionError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal
from llama_vision.providers import PROVIDERS, find_provider
from tests.contract.subject import HOSTED
from tests.emulator import ACCOUNT_ID, completion, event_stream, json_answer, page

KEY = "sk-live-0f1e2d3c4b5a69788796"
OTHER_KEY = "byok-9f8e7d6c5b4a"


class Tracer(BaseCallbackHandler):
    """Keeps everything that LangChain would send to a tracer."""

    def __init__(self):
        self.seen = []

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.seen.append(f"{serialized} {messages} {kwargs}")

    def on_llm_end(self, response, **kwargs):
        self.seen.append(f"{response} {kwargs}")

    def on_llm_error(self, error, **kwargs):
        self.seen.append(f"{error!r} {kwargs}")


def models(provider, address, max_retries=0):
    account = {"account_id": ACCOUNT_ID} if PROVIDERS[provider].account_env else {}
    options = {
        "provider": provider,
        "api_key": KEY,
        "default_headers": {"x-byok": OTHER_KEY},
        "max_retries": max_retries,
    }
    return [
        ChatLlamaVision(base_url=address, **options, **account),
        LlamaVision(api_base=address, **options, **account),
        LlamaVisionMultiModal(api_base=address, **options, **account),
    ]


def everything_shown(model):
    shown = [
        repr(model),
        str(model),
        repr(model._backend()),
        repr(model._backend().__dict__),
    ]
    shown += [repr(pickle.dumps(model)), repr(copy.deepcopy(model))]
    if isinstance(model, ChatLlamaVision):
        shown += [
            dumps(model),
            str(model.asdict()),
            str(model._identifying_params),
            str(model._get_ls_params()),
        ]
        shown += [model._get_llm_string(), model.model_dump_json(), str(model.lc_attributes)]
    else:
        shown += [json.dumps(model.to_dict(), default=str), model.to_json(), str(model.to_payload())]
    return shown


def answers_of_all_kinds(key):
    """Good ones, and bad ones that repeat the key."""
    repeating = {"error": {"message": f"Incorrect API key provided: {key}", "code": 401}}
    return [
        completion("Hi"),
        json_answer(repeating, 401),
        json_answer(repeating, 500),
        json_answer(repeating),
        page(f"<title>{key}</title>", 502),
        page(f"<p>{key}</p>"),
        event_stream({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}, repeating),
        event_stream(f"data: {key}\n\n".encode()),
    ]


@pytest.mark.parametrize("provider", HOSTED)
@pytest.mark.slow_beyond(3)
def test_no_key_is_shown_anywhere(provider, emulator_of, caplog):
    caplog.set_level(logging.DEBUG)
    emulator = emulator_of(provider)
    emulator.api_key = KEY
    texts = []
    for model in models(provider, emulator.base_url):
        texts += everything_shown(model)
        for streamed in (False, True):
            for answer in answers_of_all_kinds(KEY):
                emulator.script(answer)
                texts += ask(model, streamed)
    texts.append(caplog.text)
    assert len(texts) > 100
    shown = [text for text in texts if KEY in text or OTHER_KEY in text]
    assert not shown, shown[0][:2000]


@pytest.mark.parametrize("provider", HOSTED)
@pytest.mark.slow_beyond(1)
def test_no_key_and_no_account_is_logged_where_calls_are_made_again(provider, emulator_of, caplog):
    caplog.set_level(logging.DEBUG)
    emulator = emulator_of(provider)
    emulator.api_key = KEY
    repeating = {"error": {"message": f"Too many calls of {KEY} and {ACCOUNT_ID}"}}
    for model in models(provider, emulator.base_url, max_retries=1):
        for streamed in (False, True):
            emulator.script(json_answer(repeating, 503))
            ask(model, streamed)
    ours = [record.getMessage() for record in caplog.records if record.name == "llama_vision"]
    assert len(ours) == 6
    assert all("status 503, retrying in" in text for text in ours)
    assert not [text for text in ours if ACCOUNT_ID in text]
    assert KEY not in caplog.text
    assert OTHER_KEY not in caplog.text


def ask(model, streamed):
    """Ask, and give everything that is raised, traced or returned."""
    tracer, handler = Tracer(), LlamaDebugHandler(print_trace_on_end=False)
    try:
        if isinstance(model, ChatLlamaVision):
            config = {"callbacks": [tracer]}
            given = list(model.stream("Hello!", config)) if streamed else model.invoke("Hello!", config)
        else:
            model.callback_manager = CallbackManager([handler])
            given = (
                list(model.stream_complete("Hello!")) if streamed else asyncio.run(model.acomplete("Hello!"))
            )
        raised = repr(given)
    except LlamaVisionError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=False)
        raised = "".join(shown.format()) + repr(error.__dict__) + repr(pickle.dumps(error))
    return [raised, *tracer.seen, *(repr(event.payload) for event in handler.get_events())]


def test_a_record_holds_no_key(monkeypatch):
    for provider in PROVIDERS.values():
        for name in provider.key_env:
            monkeypatch.setenv(name, KEY)
    for name in PROVIDERS:
        record = find_provider(name)
        assert KEY not in repr(record)
        if record.dialect is not None:
            assert KEY.encode() not in pickle.dumps(record)

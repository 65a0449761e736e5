"""What LlamaIndex is told of a call: tokens as the provider counted them, one start and one end, errors, rate limits."""

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.core.tools import FunctionTool
from pydantic import Field

from llama_vision.core.errors import AuthenticationError
from tests.emulator import completion
from tests.emulator.chat_completions import usage_of
from tests.llamaindex.cats import AT_EVERY_PROVIDER, IMAGE, Cat, model_at, new_prompt
from tests.llamaindex.engines import engine_over
from tests.llamaindex.gallery import BOTH, nodes_of

ENDPOINTS = [
    f"{asynchronous}{stream}{kind}"
    for kind in ("chat", "complete")
    for stream in ("", "stream_")
    for asynchronous in ("", "a")
]
EVERY_ENDPOINT = pytest.mark.parametrize("endpoint", ENDPOINTS)
MESSAGES = [ChatMessage(blocks=[ImageBlock(path=IMAGE), TextBlock(text="What is it?")])]
COUNTS = usage_of(1234, 56)


def call(model, endpoint):
    """Ask about an image at one of the eight endpoints; give all responses."""
    if endpoint.endswith("chat"):
        arguments, options = (MESSAGES,), {}
    else:
        arguments, options = ("What is it?",), {"image_documents": [IMAGE]}

    async def called():
        response = await getattr(model, endpoint)(*arguments, **options)
        return [item async for item in response] if "stream" in endpoint else [response]

    if endpoint.startswith("a"):
        return asyncio.run(called())
    response = getattr(model, endpoint)(*arguments, **options)
    return list(response) if "stream" in endpoint else [response]


class Events(BaseEventHandler):
    """Remembers the names of events."""

    names: list[str] = Field(default_factory=list)
    payloads: list[dict] = Field(default_factory=list)

    @classmethod
    def class_name(cls):
        return "Events"

    def handle(self, event, **_):
        self.names.append(event.class_name())
        if hasattr(event, "model_dict"):
            self.payloads.append(event.model_dict)


@pytest.fixture
def events():
    root = get_dispatcher()
    before = list(root.event_handlers)
    handler = Events()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers = before


class Turnstile(BaseRateLimiter):
    """Counts who goes through."""

    def __init__(self):
        self.passed = []

    def acquire(self, num_tokens=0):
        self.passed.append("sync")

    async def async_acquire(self, num_tokens=0):
        self.passed.append("async")


@BOTH
@AT_EVERY_PROVIDER
def test_tokens_are_counted_as_the_provider_does_at_every_endpoint(emulator_of, provider, model_class):
    emulator = emulator_of(provider)
    emulator.always(completion("It is a blue circle.", usage=COUNTS))
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 1000)  # an estimate would be seen
    model = model_at(emulator, provider, model_class, callback_manager=CallbackManager([counter]))
    for endpoint in ENDPOINTS:
        call(model, endpoint)
    counted = [(event.prompt_token_count, event.completion_token_count) for event in counter.llm_token_counts]
    assert counted == [(1234, 56)] * 8


@pytest.mark.usefixtures("own_loop")
@BOTH
@pytest.mark.parametrize("streaming", [True, False])
def test_tokens_are_counted_through_a_query_engine(emulator, paths, model_class, streaming, monkeypatch):
    emulator.always(completion("Colours.", usage=COUNTS))
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 1000)
    # An engine puts those of the settings into the model.
    monkeypatch.setattr(Settings, "_callback_manager", CallbackManager([counter]))
    engine = engine_over(nodes_of(paths), model_at(emulator, model_class=model_class), streaming=streaming)
    assert str(engine.query("What?")) == "Colours."
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (1234, 56)


@pytest.mark.parametrize("streaming", [True, False])
def test_tokens_of_tool_calls_and_objects_are_counted(emulator, streaming):
    emulator.always(completion(calls=[("Cat", {"name": "Tom", "age": 3})], usage=COUNTS))
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 1000)
    model = model_at(emulator, callback_manager=CallbackManager([counter]))
    tools = [FunctionTool.from_defaults(lambda name, age: name, name="Cat")]
    if streaming:
        list(model.stream_chat_with_tools(tools, "Who?"))
        list(model.stream_structured_predict(Cat, new_prompt(), name="Tom"))
    else:
        model.chat_with_tools(tools, "Who?")
        model.structured_predict(Cat, new_prompt(), name="Tom")
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (2 * 1234, 2 * 56)


@BOTH
@EVERY_ENDPOINT
def test_a_call_has_one_start_and_one_end(emulator, model_class, endpoint, events):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    model = model_at(emulator, model_class=model_class, callback_manager=CallbackManager([handler]))
    responses = call(model, endpoint)
    ((start, end),) = handler.get_event_pairs(CBEventType.LLM)
    assert EventPayload.EXCEPTION not in end.payload
    assert start.payload[EventPayload.SERIALIZED]["class_name"] == model_class.class_name()
    kind = "LLMChat" if endpoint.endswith("chat") else "LLMCompletion"
    under_way = [f"{kind}InProgressEvent"] * len(responses) if "stream" in endpoint else []
    assert events.names == [f"{kind}StartEvent", *under_way, f"{kind}EndEvent"]


@BOTH
@EVERY_ENDPOINT
def test_a_call_that_fails_ends_with_its_error(emulator, model_class, endpoint):
    emulator.script(emulator.refusal(401, "No."))
    handler = LlamaDebugHandler(print_trace_on_end=False)
    model = model_at(emulator, model_class=model_class, callback_manager=CallbackManager([handler]))
    with pytest.raises(AuthenticationError) as caught:
        call(model, endpoint)
    ((_, end),) = handler.get_event_pairs(CBEventType.LLM)
    assert end.payload[EventPayload.EXCEPTION] is caught.value


@BOTH
@EVERY_ENDPOINT
def test_events_tell_no_key(emulator, model_class, endpoint, events):
    call(model_at(emulator, model_class=model_class, default_headers={"x-byok": "s3cret"}), endpoint)
    (payload,) = events.payloads
    assert payload["class_name"] == model_class.class_name()
    assert emulator.api_key not in str(payload)
    assert "s3cret" not in str(payload)


@BOTH
def test_a_rate_limiter_is_asked_once_for_each_call(emulator, model_class):
    limiter = Turnstile()
    model = model_at(emulator, model_class=model_class, rate_limiter=limiter)
    for endpoint in ENDPOINTS:
        call(model, endpoint)
    assert limiter.passed == ["async" if endpoint.startswith("a") else "sync" for endpoint in ENDPOINTS]


@BOTH
def test_one_model_works_in_one_event_loop_after_another_and_beside_them(emulator, model_class):
    model = model_at(emulator, model_class=model_class)  # which never tries again
    for _ in range(3):
        for endpoint in ENDPOINTS:
            assert call(model, endpoint)[-1].raw["finish_reason"] == "stop"
    assert len(emulator.requests) == 3 * 8

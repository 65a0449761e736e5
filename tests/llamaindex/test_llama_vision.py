"""`LlamaVision` and `LlamaVisionMultiModal` as objects: endpoints, events, options, tools, secrets."""

import asyncio
import base64
import copy
import json
import pickle
from dataclasses import replace

import httpx
import pytest
from llama_index.core import get_response_synthesizer
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.llms import LLM
from llama_index.core.multi_modal_llms import MultiModalLLM
from llama_index.core.schema import ImageDocument, ImageNode, NodeWithScore
from llama_index.core.tools import FunctionTool
from pydantic import ValidationError

from llama_vision.core.errors import (
    ContextTooLongError,
    MissingKeyError,
    RequestTimeoutError,
    UnknownProviderError,
    UnsupportedInputError,
)
from llama_vision.core.models import ModelInfo
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal
from llama_vision.providers.hosted import DEEPINFRA
from llama_vision.providers.servers import OPENAI_COMPATIBLE
from tests.captions.captioning import slow
from tests.context_overflows import OVERFLOWS
from tests.emulator import completion

KEY = "sk-very-secret-3141"
IMAGE = SAMPLE_IMAGES["circle"]
BOTH = pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])
MESSAGES = [ChatMessage(content="Hi")]


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Sunny in {city}"


def get_time(zone: str) -> str:
    """Get the time of a zone."""
    return zone


TOOLS = [FunctionTool.from_defaults(get_weather), FunctionTool.from_defaults(get_time)]


def model_at(emulator, model_class=LlamaVision, **options):
    return model_class(
        provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key, max_retries=0, **options
    )


def all_endpoints(model, **options):
    """Call all eight, and give the last response of each."""

    async def asynchronous():
        return [
            await model.achat(MESSAGES, **options),
            [item async for item in await model.astream_chat(MESSAGES, **options)][-1],
            await model.acomplete("Hi", **options),
            [item async for item in await model.astream_complete("Hi", **options)][-1],
        ]

    return [
        model.chat(MESSAGES, **options),
        list(model.stream_chat(MESSAGES, **options))[-1],
        model.complete("Hi", **options),
        list(model.stream_complete("Hi", **options))[-1],
        *asyncio.run(asynchronous()),
    ]


def text_of(response):
    return response.text if hasattr(response, "text") else response.message.content


@BOTH
def test_all_eight_endpoints_say_the_same_with_the_same_usage(emulator, model_class):
    responses = all_endpoints(model_at(emulator, model_class))
    assert {text_of(response) for response in responses} == {"Hello! How can I help you today?"}
    assert {json.dumps(response.raw, sort_keys=True) for response in responses} == {
        json.dumps(responses[0].raw, sort_keys=True)
    }
    assert responses[0].raw["usage"]["completion_tokens"] > 0
    assert all(response.additional_kwargs["cost_usd"] > 0 for response in responses)
    assert all(response.additional_kwargs["cost_is_estimate"] is False for response in responses)
    assert len(emulator.requests) == 8


@pytest.mark.parametrize("place", ["a server", "this machine"])
@pytest.mark.parametrize("number", range(8))
def test_a_context_that_is_too_long_is_told_as_that_in_each_endpoint(emulator, place, number):
    if place == "a server":
        emulator.script(OVERFLOWS["DeepInfra"][0])
        model, text, limit = model_at(emulator), "Hi", 4095
    else:
        model, text, limit = LlamaVision(provider="local"), "so " * 3000, 2048
    with pytest.raises(ContextTooLongError) as caught:
        endpoint(number)(model, text)
    assert caught.value.context_window == limit
    assert caught.value.requested_tokens > limit


def endpoint(number):
    """Return a call of one of the eight endpoints, to its end."""

    def messages(text):
        return [ChatMessage(content=text)]

    async def collect(stream):
        return [item async for item in await stream]

    return [
        lambda model, text: model.chat(messages(text)),
        lambda model, text: list(model.stream_chat(messages(text))),
        lambda model, text: model.complete(text),
        lambda model, text: list(model.stream_complete(text)),
        lambda model, text: asyncio.run(model.achat(messages(text))),
        lambda model, text: asyncio.run(collect(model.astream_chat(messages(text)))),
        lambda model, text: asyncio.run(model.acomplete(text)),
        lambda model, text: asyncio.run(collect(model.astream_complete(text))),
    ][number]


@BOTH
def test_each_call_has_one_start_and_one_end(emulator, model_class):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    all_endpoints(model_at(emulator, model_class, callback_manager=CallbackManager([handler])))
    pairs = handler.get_event_pairs(CBEventType.LLM)
    assert [len(pair) for pair in pairs] == [2] * 8


def test_tokens_are_counted_as_the_provider_tells_them(emulator):
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 1000)
    responses = all_endpoints(model_at(emulator, callback_manager=CallbackManager([counter])))
    assert counter.prompt_llm_token_count == sum(r.raw["usage"]["prompt_tokens"] for r in responses)
    assert counter.completion_llm_token_count == sum(r.raw["usage"]["completion_tokens"] for r in responses)


def test_a_stream_grows_and_tells_what_is_new(emulator):
    responses = list(model_at(emulator).stream_chat(MESSAGES))
    grown = ""
    for response in responses:
        grown += response.delta
        assert response.message.content == grown
    assert len(responses) > 2


@BOTH
def test_images_of_a_completion_come_before_its_words(emulator, model_class):
    base64_text = base64.b64encode(IMAGE.read_bytes()).decode()
    documents = [
        ImageDocument(image_path=str(IMAGE)),
        ImageBlock(path=IMAGE),
        ImageDocument(image=base64_text),
    ]
    response = model_at(emulator, model_class).complete("What?", image_documents=documents)
    assert response.text == "I see 3 image(s)."
    assert emulator.requests[0].images == [IMAGE.read_bytes()] * 3
    kinds = [block["type"] for block in emulator.requests[0].body["messages"][0]["content"]]
    assert kinds == ["image_url"] * 3 + ["text"]


def test_images_may_be_the_second_argument_of_a_multi_modal_model(emulator):
    model = model_at(emulator, LlamaVisionMultiModal)
    assert model.complete("What?", [IMAGE]).text == "I see 1 image(s)."
    assert asyncio.run(model.acomplete("What?", [IMAGE])).text == "I see 1 image(s)."


def test_images_in_the_place_of_a_flag_are_refused_and_not_lost(emulator):
    with pytest.raises(UnsupportedInputError, match="image_documents"):
        model_at(emulator).complete("What?", [IMAGE])
    assert emulator.requests == []


def test_what_it_is():
    model = LlamaVisionMultiModal(provider="deepinfra", max_tokens=77)
    assert isinstance(model, LLM)
    assert isinstance(model, MultiModalLLM)
    assert not isinstance(LlamaVision(), MultiModalLLM)
    assert "multi" in model.class_name()
    metadata = model.metadata
    assert (metadata.context_window, metadata.num_output) == (131_072, 77)
    assert metadata.is_chat_model
    assert metadata.is_function_calling_model
    assert metadata.model_name == "llama-3.2-11b-vision"
    assert LlamaVision(provider="deepinfra", model="llama-3.2-90b-vision").metadata.context_window == 32_768


def test_a_small_window_has_room_for_images_as_llama_index_counts_them():
    assert LlamaVision(provider="local").metadata.context_window == 2048 + 8 * 2125


@pytest.mark.parametrize("mode", ["simple_summarize", "compact", "refine", "tree_summarize", "accumulate"])
def test_a_model_with_a_small_window_is_shown_the_images_of_nodes(emulator_of, mode):
    emulator = emulator_of("openai-compatible")
    small = replace(
        OPENAI_COMPATIBLE, models=(ModelInfo("small", OPENAI_COMPATIBLE.models[0].id, context_window=2048),)
    )
    emulator.always(completion("Blue."))
    synthesizer = get_response_synthesizer(
        llm=LlamaVision(provider=small, model="small", api_base=emulator.base_url, api_key=emulator.api_key),
        multimodal=True,
        response_mode=mode,
    )
    nodes = [
        NodeWithScore(
            node=ImageNode(
                image_path=str(path), image_mimetype="image/png", metadata={"caption": "A drawing"}
            )
        )
        for path in (SAMPLE_IMAGES["circle"], SAMPLE_IMAGES["shapes"])
    ]
    assert "Blue." in str(synthesizer.synthesize("What color is it?", nodes))
    assert sum(len(asked.images) for asked in emulator.requests) == len(nodes)
    assert all(asked.images for asked in emulator.requests)


def test_every_option_arrives_and_a_call_overrides_the_fields(emulator):
    model = model_at(
        emulator,
        temperature=0.5,
        max_tokens=99,
        additional_kwargs={"top_p": 0.9, "stop": ["END"], "user": "u-1"},
        default_headers={"x-team": "blue"},
    )
    model.chat(MESSAGES)
    model.chat(MESSAGES, temperature=0, top_p=0.8, extra_body={"user": "u-2"}, model="llama-3.2-90b-vision")
    first, second = (request.body for request in emulator.requests)
    assert first == {
        "model": "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "max_tokens": 99,
        "top_p": 0.9,
        "stop": ["END"],
        "user": "u-1",
    }
    changed = {
        "temperature": 0,
        "top_p": 0.8,
        "user": "u-2",
        "model": "meta-llama/Llama-3.2-90B-Vision-Instruct",
    }
    assert second == {**first, **changed}
    assert emulator.requests[0].headers["x-team"] == "blue"


def test_an_unknown_option_of_a_call_is_refused(emulator):
    with pytest.raises(UnsupportedInputError, match="colour"):
        model_at(emulator).chat(MESSAGES, colour="red")


def test_what_is_wrong_is_told_when_a_stream_is_asked_for_and_not_at_its_first_piece(emulator):
    with pytest.raises(UnsupportedInputError, match="colour"):
        model_at(emulator).stream_chat(MESSAGES, colour="red")


def test_the_system_prompt_stands_first_once(emulator):
    model = model_at(emulator, system_prompt="Be kind.")
    model.complete("Hi")
    model.chat([ChatMessage(role="system", content="Be brief."), *MESSAGES])
    systems = [
        [message["content"] for message in request.body["messages"] if message["role"] == "system"]
        for request in emulator.requests
    ]
    assert systems == [["Be kind."], ["Be brief."]]


def test_tools_are_called_and_the_history_is_not_touched(emulator):
    model = model_at(emulator)
    history = [ChatMessage(content="Hello"), ChatMessage(role="assistant", content="Hi!")]
    before = copy.deepcopy(history)
    response = model.chat_with_tools(TOOLS, "The weather in Paris?", chat_history=history, tool_required=True)
    assert history == before
    body = emulator.requests[0].body
    assert body["tool_choice"] == "required"
    assert "parallel_tool_calls" not in body  # which DeepInfra does not document
    assert [entry["function"]["name"] for entry in body["tools"]] == ["get_weather", "get_time"]
    (selection,) = model.get_tool_calls_from_response(response)
    assert selection.tool_name == "get_weather"
    assert response.message.additional_kwargs["tool_calls"][0]["id"] == selection.tool_id


@pytest.mark.parametrize(("allowed", "sent"), [(False, False), (True, None)])
def test_one_call_at_a_time_is_asked_for_where_that_can_be_said(emulator, allowed, sent):
    model = LlamaVision(
        provider="openai-compatible",
        model=DEEPINFRA.models[0].id,
        api_base=emulator.base_url,
        api_key=emulator.api_key,
    )
    model.chat_with_tools(TOOLS, "The weather in Paris?", allow_parallel_tool_calls=allowed)
    assert emulator.requests[0].body.get("parallel_tool_calls") is sent


def test_parallel_calls_all_arrive_or_only_the_first_is_kept(emulator):
    calls = [("get_weather", {"city": "Paris"}), ("get_time", {"zone": "CET"})]
    emulator.script(*[completion("Both.", calls=calls)] * 3)
    model = model_at(emulator)
    both = model.chat_with_tools(TOOLS, "Both?", allow_parallel_tool_calls=True)
    one = model.chat_with_tools(TOOLS, "Both?")
    streamed = list(model.stream_chat_with_tools(TOOLS, "Both?", allow_parallel_tool_calls=True))[-1]
    for response in (both, streamed):
        selections = model.get_tool_calls_from_response(response)
        assert [(each.tool_name, each.tool_kwargs) for each in selections] == calls
    assert [block.tool_name for block in one.message.blocks if isinstance(block, ToolCallBlock)] == [
        "get_weather"
    ]
    assert len(one.message.additional_kwargs["tool_calls"]) == 1
    assert "parallel_tool_calls" not in emulator.requests[0].body


def test_no_tool_call_where_one_is_needed(emulator):
    model = model_at(emulator)
    response = model.chat(MESSAGES)
    assert model.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="no tool"):
        model.get_tool_calls_from_response(response)


def test_no_tools_say_nothing_about_tools(emulator):
    model_at(emulator).chat_with_tools([], "Hi")
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & emulator.requests[0].body.keys()


def test_a_tools_result_goes_back_with_its_image(emulator):
    model = model_at(emulator)
    asked = model.chat_with_tools(TOOLS, "The weather in Paris?", tool_required=True)
    (selection,) = model.get_tool_calls_from_response(asked)
    result = ChatMessage(
        role="tool",
        blocks=[TextBlock(text="Sunny"), ImageBlock(path=IMAGE)],
        additional_kwargs={"tool_call_id": selection.tool_id},
    )
    model.chat([ChatMessage(content="The weather in Paris?"), asked.message, result])
    _, call, answer, shown = emulator.requests[1].body["messages"]
    assert call["tool_calls"][0]["id"] == answer["tool_call_id"] == selection.tool_id
    assert answer["content"] == "Sunny"
    assert shown["role"] == "user"
    assert emulator.requests[1].images == [IMAGE.read_bytes()]


@BOTH
def test_keys_stay_out_of_everything_that_is_shown_or_saved(model_class):
    model = model_class(provider="deepinfra", api_key=KEY, default_headers={"x-byok": KEY})
    shown = [
        repr(model),
        str(model),
        json.dumps(model.to_dict(), default=str),
        str(model.to_payload()),
        model.to_json(),
    ]
    assert not any(KEY in text for text in shown)
    assert KEY.encode() not in pickle.dumps(model)
    assert copy.deepcopy(model).api_key.get_secret_value() == KEY


@BOTH
def test_it_can_be_saved_and_loaded(model_class):
    model = model_class(provider="deepinfra", temperature=0.5, system_prompt="Be kind.")
    for other in (model_class.from_dict(model.to_dict()), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert (other.provider, other.temperature, other.system_prompt) == ("deepinfra", 0.5, "Be kind.")


@BOTH
def test_clients_of_the_users_own_are_used_and_stay_out_of_dumps(emulator, model_class):
    headers = {"x-mine": KEY}

    async def ask():
        async with httpx.AsyncClient(headers=headers) as client:
            model = model_at(emulator, model_class, http_async_client=client)
            await model.acomplete("Hi")
            return [item async for item in await model.astream_chat(MESSAGES)], model

    with httpx.Client(headers=headers) as client:
        model = model_at(emulator, model_class, http_client=client)
        model.complete("Hi")
        list(model.stream_chat(MESSAGES))
    models = [model, asyncio.run(ask())[1]]
    assert [request.headers.get("x-mine") for request in emulator.requests] == [KEY] * 4
    for model in models:
        assert "client" not in f"{model!r} {model.to_dict()} {model.to_payload()}"
        for other in (model_class.from_dict(model.to_dict()), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
            assert (other.http_client, other.http_async_client) == (None, None)


@BOTH
def test_a_timeout_may_be_of_httpx_and_is_saved_and_loaded(emulator, model_class):
    emulator.always(slow("Late.", 5))
    timeout = httpx.Timeout(60, read=0.2)
    model = model_at(emulator, model_class, timeout=timeout)
    for other in (model, model_class.from_dict(json.loads(json.dumps(model.to_dict())))):
        assert other.timeout == timeout
    with pytest.raises(RequestTimeoutError):
        model.complete("Hi")


def test_wrong_set_up_is_told_clearly(monkeypatch):
    for name in DEEPINFRA.key_env:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnknownProviderError, match="nope"):
        LlamaVision(provider="nope")
    with pytest.raises(ValidationError, match="apikey") as caught:
        LlamaVision(apikey=KEY)
    assert KEY not in str(caught.value)
    with pytest.raises(MissingKeyError, match="DEEPINFRA_TOKEN"):
        LlamaVision(provider="deepinfra").complete("Hi")

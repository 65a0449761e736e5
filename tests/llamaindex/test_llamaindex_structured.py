"""Structured output: what is asked with every method, in every way, and what is made of the answers."""

import json
import threading
from itertools import pairwise
from typing import Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.program.utils import get_program_for_llm
from llama_index.core.prompts import ChatPromptTemplate, RichPromptTemplate
from pydantic import BaseModel, RootModel, ValidationError

from llama_vision import LlamaVisionError
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.llamaindex import LlamaVision, StructuredOutputError
from tests.emulator import STALL, chunks, completion, event_stream
from tests.llamaindex.cats import (
    AT_EVERY_PROVIDER,
    FORCES_TOOLS,
    IMAGE,
    IN_EVERY_WAY,
    TOM,
    WAYS,
    Cat,
    called,
    good,
    model_at,
    new_prompt,
    predict,
)


class Cats(RootModel[list[Cat]]):
    """Several cats."""


class Tree(BaseModel):
    """Contains itself."""

    children: list["Tree"] = []


@AT_EVERY_PROVIDER
@IN_EVERY_WAY
def test_auto_gives_the_object_with_one_request(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(good(provider))
    model = model_at(emulator, provider, system_prompt="Be kind.")
    *_, cat = predict(model, way)
    assert cat == Cat(name="Tom", age=3)
    assert type(cat) is Cat
    (request,) = emulator.requests
    system, user = request.body["messages"]
    assert system == {"role": "system", "content": "Be kind."}
    assert user["content"].startswith("Describe the cat Tom.")
    if provider in FORCES_TOOLS:
        assert request.body["tool_choice"] == "required"
        assert [tool["function"]["name"] for tool in request.body["tools"]] == ["Cat"]
        assert request.body["tools"][0]["function"]["parameters"]["properties"]["age"]["minimum"] == 0
        assert user["content"] == "Describe the cat Tom."
    else:
        assert '"minimum": 0' in user["content"]
        assert not {"tools", "tool_choice", "response_format"} & request.body.keys()


@AT_EVERY_PROVIDER
@IN_EVERY_WAY
def test_auto_asks_again_with_the_answer_and_what_is_wrong_with_it(emulator_of, provider, way):
    emulator = emulator_of(provider)
    bad = '{"name": "Tom", "age": -3}'
    emulator.script(good(provider, bad), completion("I am sorry."), good(provider))
    *_, cat = predict(model_at(emulator, provider), way)
    assert cat == Cat(name="Tom", age=3)
    first, second, third = (request.body for request in emulator.requests)
    asked, answer, again = second["messages"]
    assert [asked] == first["messages"]
    assert answer["role"] == "assistant"
    assert bad in answer["content"]
    assert again["role"] == "user"
    assert "age: Input should be greater than or equal to 0" in again["content"]
    assert third["messages"][:3] == second["messages"]
    assert third["messages"][3] == {"role": "assistant", "content": "I am sorry."}
    assert len({json.dumps(body.get("tools")) for body in (first, second, third)}) == 1


@IN_EVERY_WAY
def test_auto_gives_up_after_three_answers_and_shows_the_last_shortened(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.script(*[completion("No " * 1000)] * 3)
    with pytest.raises(
        StructuredOutputError, match=r"does not fit Cat .*, asked 3 times: It is not JSON"
    ) as caught:
        predict(model_at(emulator, "cloudflare"), way)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LlamaVisionError)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    assert len(str(caught.value)) < 600
    assert "[cloudflare, " in str(caught.value)


@IN_EVERY_WAY
@pytest.mark.parametrize("method", ["auto", "function_calling", "json_schema", "json_mode", "prompt"])
def test_an_answer_that_was_cut_off_is_not_asked_for_again(emulator_of, way, method):
    emulator = emulator_of("deepinfra")
    half = '{"name": "Tom", "ag'
    cut = called(half, finish_reason="length")
    emulator.script(
        cut if method in ("auto", "function_calling") else completion(half, finish_reason="length")
    )
    with pytest.raises(StructuredOutputError, match="raise max_tokens"):
        predict(model_at(emulator, structured_output=method), way)


def test_an_answer_that_was_cut_off_after_its_end_is_taken(emulator_of):
    emulator = emulator_of("aimlapi")
    emulator.script(completion(f"{TOM} I hope that", finish_reason="length"))
    assert predict(model_at(emulator, "aimlapi"), "whole") == [Cat(name="Tom", age=3)]


def test_a_call_whose_arguments_had_not_begun_is_cut_off_too(emulator_of):
    class Anything(BaseModel):
        name: str = "nobody"

    emulator = emulator_of("deepinfra")
    emulator.script(completion(calls=[("Anything", "")], finish_reason="length"))
    with pytest.raises(StructuredOutputError, match="raise max_tokens"):
        predict(model_at(emulator), "whole", Anything)


@IN_EVERY_WAY
@pytest.mark.parametrize(
    ("method", "sent"),
    [
        ("function_calling", {"tools", "tool_choice"}),
        ("json_schema", {"response_format"}),
        ("json_mode", {"response_format"}),
        ("prompt", set()),
    ],
)
def test_each_method_asks_in_its_own_way(emulator_of, way, method, sent):
    emulator = emulator_of("deepinfra")
    emulator.script(called(TOM) if method == "function_calling" else completion(TOM))
    assert predict(model_at(emulator, structured_output=method), way)[-1] == Cat(name="Tom", age=3)
    (request,) = emulator.requests
    assert request.body.keys() & {"tools", "tool_choice", "response_format"} == sent
    form = request.body.get("response_format", {"type": None})
    assert form["type"] == {"json_schema": "json_schema", "json_mode": "json_object"}.get(method)
    if method == "json_schema":
        assert form["json_schema"] == {"name": "Cat", "schema": Cat.model_json_schema()}
    words = request.body["messages"][0]["content"]
    assert ("JSON schema" in words) is (method in ("json_mode", "prompt"))


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
@IN_EVERY_WAY
def test_an_explicit_method_of_the_providers_is_one_request(emulator_of, method, way):
    emulator = emulator_of("deepinfra")
    emulator.script(completion("No cat."))
    with pytest.raises(
        StructuredOutputError, match=r"does not fit Cat [^,]*: It is not JSON.*\sIt was: 'No cat\.'"
    ):
        predict(model_at(emulator, structured_output=method), way)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@IN_EVERY_WAY
def test_an_explicit_method_that_the_provider_lacks_is_refused(emulator_of, method, way):
    emulator = emulator_of("cloudflare")
    with pytest.raises(UnsupportedInputError, match="response_format"):
        predict(model_at(emulator, "cloudflare", structured_output=method), way)
    assert emulator.requests == []


def test_an_unknown_method_is_refused_when_the_model_is_made():
    with pytest.raises(ValidationError, match="structured_output"):
        LlamaVision(structured_output="magic")


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_shows_the_object_as_it_grows(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(good(provider, '{"name": "Tom the Cat", "age": 3}'))
    *partial, cat = predict(model_at(emulator, provider), way)
    assert cat == Cat(name="Tom the Cat", age=3)
    names = [item.name for item in partial if item.name is not None]
    assert names == sorted(names, key=len)
    assert len(set(names)) > 1
    assert all("Tom the Cat".startswith(name) for name in names)
    assert partial[0].age is None
    assert all(first != second for first, second in pairwise([*partial, None]))


@AT_EVERY_PROVIDER
@pytest.mark.parametrize("method", ["auto", "prompt"])
def test_images_of_the_prompt_arrive(emulator_of, provider, method):
    emulator = emulator_of(provider)
    answer = good(provider) if method == "auto" else completion(TOM)
    emulator.script(*[answer] * 4)
    model = model_at(emulator, provider, structured_output=method)
    blocks = [ImageBlock(path=IMAGE), TextBlock(text="Who is {name}?")]
    chat = ChatPromptTemplate([ChatMessage(role="user", blocks=blocks)])
    rich = RichPromptTemplate("{% chat role='user' %}{{ image | image }}Who is {{ name }}?{% endchat %}")
    for way in ("whole", "astream"):
        assert predict(model, way, prompt=chat, name="Tom")[-1] == Cat(name="Tom", age=3)
        found = predict(model, way, prompt=rich, name="Tom", image=str(IMAGE))[-1]
        assert found == Cat(name="Tom", age=3)
    assert [request.images for request in emulator.requests] == [[IMAGE.read_bytes()]] * 4
    assert all("Who is Tom?" in json.dumps(request.body) for request in emulator.requests)


def test_options_of_the_call_arrive_and_are_not_changed(emulator_of):
    emulator = emulator_of("deepinfra")
    emulator.script(*[called(TOM)] * 4)
    options = {"max_tokens": 77, "tool_required": True, "model": "llama-3.2-90b-vision"}
    for way in WAYS:
        predict(model_at(emulator), way, llm_kwargs=options)
    assert options == {"max_tokens": 77, "tool_required": True, "model": "llama-3.2-90b-vision"}
    assert [request.body["max_tokens"] for request in emulator.requests] == [77] * 4
    assert {request.body["model"] for request in emulator.requests} == {
        "meta-llama/Llama-3.2-90B-Vision-Instruct"
    }


def test_an_option_that_would_ask_for_another_form_is_refused(emulator_of):
    emulator = emulator_of("deepinfra")
    with pytest.raises(UnsupportedInputError, match="response_format"):
        predict(model_at(emulator), "whole", llm_kwargs={"response_format": {"type": "json_object"}})


def test_the_object_is_taken_from_the_words_of_a_model_that_should_have_called(emulator_of):
    emulator = emulator_of("deepinfra")
    emulator.script(completion(f"Sure: {TOM}"))
    assert predict(model_at(emulator), "whole") == [Cat(name="Tom", age=3)]


def test_line_breaks_inside_of_strings_are_forgiven(emulator_of):
    emulator = emulator_of("cloudflare")
    emulator.script(completion('{"name": "Tom\nthe Cat", "age": 3}'))
    assert predict(model_at(emulator, "cloudflare"), "whole") == [Cat(name="Tom\nthe Cat", age=3)]


@pytest.mark.parametrize(
    ("output_cls", "text"), [(Cats, f"[{TOM}, {TOM}]"), (Tree, '{"children": [{"children": []}]}')]
)
@IN_EVERY_WAY
def test_what_can_not_be_the_arguments_of_a_tool_is_asked_for_in_words(emulator_of, output_cls, text, way):
    emulator = emulator_of("deepinfra")
    emulator.script(completion(text))
    assert predict(model_at(emulator), way, output_cls)[-1] == output_cls.model_validate_json(text)
    assert "tools" not in emulator.requests[0].body


def test_instructions_stand_last_where_the_user_does_not_speak_last(emulator_of):
    emulator = emulator_of("cloudflare")
    emulator.script(completion(TOM))
    said = [ChatMessage(content="Tom is three."), ChatMessage(role="assistant", content="I see.")]
    model = model_at(emulator, "cloudflare")
    model.structured_predict(Cat, ChatPromptTemplate(said))
    *before, last = emulator.requests[0].body["messages"]
    assert [message["content"] for message in before] == ["Tom is three.", "I see."]
    assert last["role"] == "user"
    assert last["content"].startswith("Answer with one JSON value")


def test_every_request_is_reported_to_the_callbacks(emulator_of):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    emulator = emulator_of("deepinfra")
    emulator.script(completion("No."), called(TOM), completion("No."), called(TOM))
    model = model_at(emulator, callback_manager=CallbackManager([handler]))
    predict(model, "whole")
    predict(model, "stream")
    assert [len(pair) for pair in handler.get_event_pairs(CBEventType.LLM)] == [2] * 4


@IN_EVERY_WAY
def test_a_stream_that_breaks_is_an_error_and_not_asked_for_again(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(emulator.refusal(500, "Broken"))
    with pytest.raises(LlamaVisionError, match="Broken"):
        predict(model_at(emulator), way)


def test_a_stream_that_is_left_is_closed(emulator_of):
    emulator = emulator_of("deepinfra")
    begin = list(chunks(called(TOM)))[:4]
    emulator.script(event_stream(*begin, STALL), event_stream(*begin, STALL))
    stream = model_at(emulator).stream_structured_predict(Cat, new_prompt(), name="Tom")
    next(stream)
    stream.close()
    assert emulator.wait_for_disconnect()
    stream = get_program_for_llm(Cat, new_prompt(), model_at(emulator)).stream_call(name="Tom")
    next(stream)
    stream.close()
    assert emulator.wait_for_disconnect(count=2)


class Drawing(BaseModel):
    """What is drawn."""

    colour: Literal["red", "green", "blue"]
    round: bool


@IN_EVERY_WAY
@pytest.mark.parametrize("method", ["auto", "json_schema"])
def test_the_model_on_this_machine_is_kept_to_the_schema(way, method):
    image = ChatMessage(blocks=[ImageBlock(path=IMAGE), TextBlock(text="What is it, {name}?")])
    model = LlamaVision(structured_output=method, max_tokens=60, provider="local", model="tiny")
    assert isinstance(predict(model, way, Drawing, ChatPromptTemplate([image]))[-1], Drawing)


def test_several_threads_and_loops_ask_at_once(emulator_of):
    emulator = emulator_of("cloudflare")

    def answer(received):
        words = received.body["messages"][0]["content"]
        name = words.split("cat ")[1].split(".")[0]
        fits = len(received.body["messages"]) > 1
        return completion(json.dumps({"name": name, "age": 3 if fits else -3}))

    emulator.always(answer)
    model = model_at(emulator, "cloudflare")
    found = {}

    def ask(way, name):
        found[name] = predict(model, way, name=name)[-1]

    threads = [threading.Thread(target=ask, args=(WAYS[number % 4], f"Tom{number}")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"Tom{number}": Cat(name=f"Tom{number}", age=3) for number in range(12)}
    assert len(emulator.requests) == 24

"""Objects as answers: every way to ask for them, with every kind of schema, in every style of call."""

import base64
import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from pydantic import RootModel

from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.structured.method import StructuredMethodError
from tests.emulator import completion
from tests.langchain.weather import (
    GOOD,
    GOOD_TEXT,
    QUESTION,
    SCHEMAS,
    Weather,
    WeatherDict,
    WeatherV1,
    ask,
    called,
    every_schema,
    every_style,
    model_at,
    name_of,
    plain,
)


@every_schema
@every_style
@pytest.mark.parametrize("method", ["auto", "function_calling", "json_schema", "json_mode", "prompt"])
def test_every_method_with_every_schema_in_every_style(emulator, method, schema, style):
    runnable = model_at(emulator).with_structured_output(schema, method=method)
    emulator.script(
        completion(calls=[(name_of(runnable), GOOD)])
        if method in ("auto", "function_calling")
        else completion(GOOD_TEXT)
    )
    answer = ask(runnable, style)
    assert plain(answer) == GOOD
    assert isinstance(answer, schema if schema in (Weather, WeatherV1) else dict)
    (request,) = emulator.requests
    body = request.body
    assert request.streamed is (style in ("stream", "astream"))
    assert ("tools" in body) is (method in ("auto", "function_calling"))
    assert body.get("response_format", {}).get("type") == {
        "json_schema": "json_schema",
        "json_mode": "json_object",
    }.get(method)
    assert ("JSON schema" in body["messages"][-1]["content"]) is (method in ("json_mode", "prompt"))


@pytest.mark.parametrize(
    ("provider", "asked_in_words"),
    [
        ("deepinfra", False),
        ("openai-compatible", False),
        ("cloudflare", True),
        ("cloudflare-openai", False),
        ("aigateway", True),
        ("aimlapi", True),
    ],
)
@every_style
def test_auto_works_at_every_provider(emulator_of, provider, asked_in_words, style):
    emulator = emulator_of(provider)
    emulator.script(completion(GOOD_TEXT) if asked_in_words else called(GOOD))
    answer = ask(model_at(emulator, provider).with_structured_output(Weather), style)
    assert answer == Weather(**GOOD)
    body = emulator.requests[-1].body
    assert ("tools" in body, "response_format" in body) == (not asked_in_words, False)
    assert ('"days"' in json.dumps(body["messages"]).replace("\\", "")) is asked_in_words


def test_a_schema_that_is_kept_to_is_sent_and_told():
    """Those who constrain decoding say that the model sees nothing of the schema unless the prompt shows it."""
    plan = ChatLlamaVision(provider="vllm").with_structured_output(Weather).plan
    assert (plan.method, bool(plan.instructions)) == ("json_schema", True)
    plan = ChatLlamaVision(provider="vllm").with_structured_output(Weather, method="json_schema").plan
    assert (plan.method, bool(plan.instructions), plan.max_retries) == ("json_schema", False, 0)


@every_schema
def test_the_tiny_model_keeps_to_a_schema(schema):
    answer = ChatLlamaVision(max_tokens=200).with_structured_output(schema).invoke(QUESTION)
    fields = plain(answer)
    assert isinstance(fields["city"], str)
    assert isinstance(fields["days"], int)


def test_the_model_of_a_call_decides_how_it_is_asked(emulator_of):
    emulator = emulator_of("aimlapi")
    model = model_at(emulator, "aimlapi")
    emulator.script(completion(GOOD_TEXT))
    other = "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo"
    assert model.with_structured_output(Weather, method="json_mode", model=other).invoke(QUESTION)
    assert emulator.requests[0].body["model"] == other
    with pytest.raises(UnsupportedInputError, match="json_object"):
        model.with_structured_output(Weather, method="json_mode").invoke(QUESTION)


@pytest.mark.parametrize("strict", [None, True, False])
@pytest.mark.parametrize("method", ["auto", "function_calling", "json_schema"])
def test_strict_is_passed_on(emulator, method, strict):
    emulator.script(completion(GOOD_TEXT) if method == "json_schema" else called(GOOD))
    model_at(emulator).with_structured_output(Weather, method=method, strict=strict).invoke(QUESTION)
    body = emulator.requests[0].body
    if method == "json_schema":
        sent, key = body["response_format"]["json_schema"], "schema"
    else:
        sent, key = body["tools"][0]["function"], "parameters"
    assert sent.get("strict") == strict
    assert sent[key].get("additionalProperties") is (False if strict else None)


def test_strict_is_kept_to_by_the_check_where_the_schema_is_put_into_words(emulator):
    extra = json.dumps({**GOOD, "mood": "wet"})
    emulator.script(completion(extra), completion(GOOD_TEXT), completion(extra))
    model = model_at(emulator)
    assert model.with_structured_output(WeatherDict, method="prompt", strict=True).invoke(QUESTION) == GOOD
    assert len(emulator.requests) == 2
    assert "mood: should not be there" in emulator.requests[1].body["messages"][-1]["content"]
    assert model.with_structured_output(WeatherDict, method="prompt").invoke(QUESTION) == json.loads(extra)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_names_are_spelt_as_servers_take_them(emulator, method):
    generic = type("Über", (RootModel[dict[str, int]],), {})
    schema = {**SCHEMAS["JSON schema"], "title": "The weather, of a place [1] " + "x" * 80}
    emulator.script(completion("{}"), completion("{}"))
    for one in (schema, generic):
        model_at(emulator).with_structured_output(one, method=method, include_raw=True).invoke(QUESTION)
    bodies = [request.body for request in emulator.requests]
    names = [
        body["tools"][0]["function"]["name"]
        if "tools" in body
        else body["response_format"]["json_schema"]["name"]
        for body in bodies
    ]
    assert names == ["The_weather__of_a_place__1__" + "x" * 36, "_ber"]


@pytest.mark.parametrize("order", ["words first", "picture first"])
def test_the_schema_follows_the_last_words_and_images_still_go_first(emulator, order):
    data = base64.b64encode(SAMPLE_IMAGES["circle"].read_bytes()).decode()
    image = {"type": "image", "base64": data, "mime_type": "image/png"}
    said = [{"type": "text", "text": QUESTION}]
    given = [
        SystemMessage("Be brief."),
        HumanMessage([*said, image] if order == "words first" else [image, *said]),
    ]
    before = [message.model_copy(deep=True) for message in given]
    emulator.script(completion(GOOD_TEXT), completion(GOOD_TEXT))
    runnable = model_at(emulator).with_structured_output(Weather, method="prompt")
    runnable.invoke(given)
    runnable.invoke([HumanMessage(QUESTION), AIMessage("Hm.")])
    assert given == before
    content = emulator.requests[0].body["messages"][-1]["content"]
    assert content[0]["type"] == "image_url"
    words = "".join(block.get("text", "") for block in content)
    assert words.startswith(f"{QUESTION}\n\n")
    assert '"days"' in words
    second = emulator.requests[1].body["messages"]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]


def test_json_mode_puts_the_schema_into_the_prompt_where_there_is_one(emulator):
    emulator.script(completion(GOOD_TEXT), completion('{"x": [1]}'))
    model = model_at(emulator)
    assert model.with_structured_output(Weather, method="json_mode").invoke(QUESTION) == Weather(**GOOD)
    assert model.with_structured_output(method="json_mode").invoke(QUESTION) == {"x": [1]}
    first, second = (request.body["messages"][0]["content"] for request in emulator.requests)
    assert first.startswith(f"{QUESTION}\n\nAnswer with one JSON value")
    assert '"days"' in first
    assert second == QUESTION


def test_further_arguments_reach_every_call(emulator):
    emulator.script(called({}), called(GOOD))
    model_at(emulator).with_structured_output(Weather, temperature=0.5, seed=3).invoke(QUESTION, stop=["END"])
    for request in emulator.requests:
        assert (request.body["temperature"], request.body["seed"], request.body["stop"]) == (0.5, 3, ["END"])


def test_a_method_that_does_not_exist_is_refused_with_those_that_do(emulator):
    with pytest.raises(StructuredMethodError, match=r"'tools'.*auto.*json_mode, prompt") as caught:
        model_at(emulator).with_structured_output(Weather, method="tools")
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("strict", [True, False])
def test_json_mode_is_not_strict(emulator, strict):
    with pytest.raises(ValueError, match="strict"):
        model_at(emulator).with_structured_output(Weather, method="json_mode", strict=strict)


@pytest.mark.parametrize("method", ["auto", "json_schema", "function_calling", "prompt"])
def test_only_json_mode_does_without_a_schema(emulator, method):
    with pytest.raises(ValueError, match="needs a schema"):
        model_at(emulator).with_structured_output(method=method)


@pytest.mark.parametrize(
    ("provider", "method", "told"),
    [
        ("cloudflare", "json_schema", "json_schema"),
        ("cloudflare", "json_mode", "json_object"),
        ("aigateway", "json_schema", "json_schema"),
        ("aimlapi", "json_mode", "json_object"),
    ],
)
def test_what_a_provider_does_not_have_is_refused_by_name(emulator_of, provider, method, told):
    emulator = emulator_of(provider)
    with pytest.raises(UnsupportedInputError, match=told):
        model_at(emulator, provider).with_structured_output(Weather, method=method).invoke(QUESTION)
    assert emulator.requests == []

"""Parameters that a provider does not document are refused, and not sent in the hope that it helps."""

from dataclasses import replace

import pytest

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.models import ModelInfo
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers import PROVIDERS, UNBOUNDED, ImageConstraints, Provider, Range
from tests.adaptation.validation import validate

HOST = Provider(
    "host",
    "My Host",
    ChatCompletionsDialect(),
    models=(
        ModelInfo("words", "host/words", response_formats=frozenset()),
        ModelInfo("objects", "host/objects", response_formats=frozenset({"json_object"})),
    ),
    parameters={
        "max_tokens": UNBOUNDED,
        "temperature": Range(0, 2),
        "stop": Range(0, 2),
        "response_format": UNBOUNDED,
    },
)
HELLO = (Message("user", (Text("Hello"),)),)
PNG = Image(data=b"x", media_type="image/png")
TOOLS = (Tool("weather"),)
JSON = ResponseFormat("json_object")
SCHEMA = ResponseFormat("json_schema", schema={})


def check(provider=HOST, model="host/other", messages=HELLO, **fields):
    validate(provider, ChatRequest(model, messages, **fields))


def refusal(**request):
    with pytest.raises(UnsupportedInputError) as caught:
        check(**request)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"sampling": SamplingParams(seed=1)}, "seed"),
        ({"sampling": SamplingParams(top_k=0)}, "top_k"),
        ({"sampling": SamplingParams(min_p=0.0)}, "min_p"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
    ],
)
def test_a_parameter_that_is_not_listed_is_named_with_a_way_around(fields, name):
    assert f"My Host has no {name}: leave it out. To send it all the same, use extra_body" in refusal(
        **fields
    )


def test_there_is_no_way_around_where_no_body_is_sent():
    text = refusal(provider=replace(HOST, dialect=None), sampling=SamplingParams(seed=1))
    assert text.startswith("My Host has no seed: leave it out. [host")


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": SamplingParams(seed=1, top_k=0, temperature=99)},
        {"stop": ("a",) * 99},
        {"parallel_tool_calls": True, "tools": TOOLS},
        {"tools": TOOLS, "tool_choice": ToolChoice("required")},
        {"response_format": SCHEMA},
    ],
    ids="+".join,
)
def test_without_a_list_everything_is_sent(fields):
    check(replace(HOST, parameters=None), **fields)


@pytest.mark.parametrize("count", [1, 2])
def test_as_many_stop_texts_as_the_provider_takes_pass(count):
    check(stop=("a",) * count)


def test_more_stop_texts_than_the_provider_takes_are_refused():
    assert "3 stop texts are out of range: My Host takes from 0 to 2." in refusal(stop=("a",) * 3)


def test_stop_texts_that_nobody_takes_are_refused_unless_they_are_watched_for_here():
    without = replace(HOST, parameters={"max_tokens": UNBOUNDED})
    assert "My Host has no stop" in refusal(provider=without, stop=("a",))
    check(replace(without, client_side_stop=True), stop=("a",) * 99)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [("words", ResponseFormat("text")), ("objects", JSON), ("other", JSON), ("other", SCHEMA), ("words", None)],
)  # fmt: skip
def test_a_form_of_the_answer_that_the_model_keeps_to_passes(model, wanted):
    check(model=f"host/{model}", response_format=wanted)


@pytest.mark.parametrize(("model", "wanted"), [("words", JSON), ("words", SCHEMA), ("objects", SCHEMA)])
def test_a_form_of_the_answer_that_the_model_does_not_keep_to_is_refused(model, wanted):
    text = refusal(model=model, response_format=wanted)
    assert f"can't keep this model to response_format {wanted.type!r}. Ask for JSON in the prompt" in text


def test_a_form_of_the_answer_is_refused_where_the_provider_has_none():
    text = refusal(provider=replace(HOST, parameters={"max_tokens": UNBOUNDED}), response_format=JSON)
    assert "can't keep this model to response_format" in text


def test_tools_are_refused_where_the_provider_takes_none():
    text = refusal(tools=TOOLS, text_tool_calls=False)
    assert "My Host takes no tools with this model" in text
    assert "text_tool_calls=True puts them into words. [host" in text


@pytest.mark.parametrize(
    "message",
    [Message("assistant", (ToolCall("a", "weather", "{}"),)), Message("tool", (ToolResult("a", ()),))],
    ids=lambda message: message.role,
)
def test_calls_and_results_of_earlier_turns_are_refused_where_the_provider_takes_none(message):
    text = refusal(messages=(*HELLO, message), text_tool_calls=False)
    assert "nor a conversation that holds their calls or results" in text
    assert "text_tool_calls=True puts them into words. [host" in text
    check(replace(HOST, parameters=None), messages=(*HELLO, message))


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "weather")])
def test_a_forced_call_is_refused_where_the_provider_can_not_force_one(choice):
    takes_tools = replace(HOST, parameters={"max_tokens": UNBOUNDED, "tools": UNBOUNDED})
    check(takes_tools, tools=TOOLS, tool_choice=ToolChoice("auto"))
    text = refusal(provider=takes_tools, tools=TOOLS, tool_choice=choice, text_tool_calls=False)
    assert "can't make the model call a tool: leave tool_choice out" in text
    assert "text_tool_calls=True tells it to in words. [host" in text


def seen(*images):
    return (Message("user", (Text("Look:"), *images)),)


@pytest.mark.parametrize(("most", "count"), [(1, 1), (2, 2), (None, 9), (0, 0)])
def test_as_many_images_as_the_provider_takes_pass(most, count):
    check(replace(HOST, image_rules=ImageConstraints(max_count=most)), messages=seen(*[PNG] * count))


def test_more_images_than_the_provider_takes_are_counted():
    text = refusal(
        provider=replace(HOST, image_rules=ImageConstraints(max_count=1)),
        messages=(*seen(PNG), *seen(PNG, PNG)),
    )
    assert "There are 3 images, and My Host takes 1 in one request. Ask about each" in text


def test_where_no_image_can_be_sent_the_text_says_what_to_do_instead():
    text = refusal(
        provider=replace(HOST, image_rules=ImageConstraints(max_count=0, alternative="Ask them.")),
        messages=seen(PNG),
    )
    assert "My Host takes no images with this model. Ask them." in text


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("deepinfra", {"stop": ("a",) * 17}),
        ("aimlapi", {"stop": ("a",) * 5}),
        ("aimlapi", {"sampling": SamplingParams(seed=0)}),
        ("aimlapi", {"sampling": SamplingParams(top_p=0)}),
        ("aimlapi", {"sampling": SamplingParams(min_p=1)}),
        ("aimlapi", {"tools": TOOLS, "text_tool_calls": False, "model": "llama-3.2-11b-vision"}),
        ("aimlapi", {"response_format": JSON, "model": "llama-3.2-11b-vision"}),
        ("aigateway", {"sampling": SamplingParams(seed=1)}),
        ("aigateway", {"sampling": SamplingParams(max_tokens=4097), "model": "llama-3.2-11b-vision"}),
        ("cloudflare", {"sampling": SamplingParams(temperature=5.1)}),
        ("cloudflare", {"sampling": SamplingParams(frequency_penalty=-1)}),
        ("cloudflare", {"sampling": SamplingParams(top_k=51)}),
        ("cloudflare", {"sampling": SamplingParams(seed=0)}),
        ("cloudflare", {"sampling": SamplingParams(min_p=0.1)}),
        ("cloudflare", {"tools": TOOLS, "tool_choice": ToolChoice("required"), "text_tool_calls": False}),
        ("cloudflare", {"tools": TOOLS, "parallel_tool_calls": False}),
        ("cloudflare", {"response_format": JSON}),
        ("cloudflare", {"messages": seen(PNG, PNG)}),
        ("cloudflare", {"messages": seen(Image(url="https://example.com/a.png"))}),
        ("cloudflare-openai", {"messages": seen(PNG)}),
        ("local", {"sampling": SamplingParams(presence_penalty=1)}),
    ],
)  # fmt: skip
def test_what_the_real_providers_do_not_document(name, fields):
    with pytest.raises(UnsupportedInputError, match=rf"\[{name}, "):
        check(PROVIDERS[name], **fields)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("cloudflare", {"stop": ("a",)}),
        ("aigateway", {"stop": ("a",) * 9}),
        ("cloudflare", {"sampling": SamplingParams(temperature=5, top_k=50, seed=9_999_999_999)}),
        ("cloudflare", {"response_format": ResponseFormat("text")}),
        ("cloudflare-openai", {"tools": TOOLS, "tool_choice": ToolChoice("required")}),
        ("aimlapi", {"response_format": SCHEMA, "model": "llama-3.2-90b-vision"}),
        ("local", {"response_format": JSON}),
        ("local", {"response_format": SCHEMA}),
        ("local", {"tools": TOOLS, "tool_choice": ToolChoice("required")}),
        ("openai-compatible", {"sampling": SamplingParams(top_k=10_000, temperature=9)}),
    ],
)
def test_what_the_real_providers_do_document(name, fields):
    check(PROVIDERS[name], **fields)

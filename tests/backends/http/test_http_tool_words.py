"""Tools and forced calls in words, as they arrive at emulators that take nothing else."""

import json

import pytest

from llama_vision.adaptation.pipeline import adapt_request
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Message, Text, ToolCall, ToolResult
from llama_vision.core.request import Tool, ToolChoice
from llama_vision.images.settings import ImageSettings
from llama_vision.providers import PROVIDERS
from tests.emulator import completion
from tests.emulator.asking import WAYS
from tests.quirks.talk import PNG, ask, backend, image, request

WEATHER = Tool("get_weather", "Tells the weather of a city (Zürich, 東京).", {"type": "object", "properties": {"city": {"type": "string"}}})  # fmt: skip
CLOCK = Tool("clock")
CALLS = Message("assistant", (ToolCall("a", "get_weather", '{"city": "東京"}'), ToolCall("b", "clock", "")))
SUNNY = Message("tool", (ToolResult("a", (Text("sunny ☀\n20 °C"),)),))
WEBP = image("WEBP", (40, 30))
SHOWN = Message("tool", (ToolResult("b", (Text("noon"), WEBP)),))
REQUIRED, NAMED = ToolChoice("required"), ToolChoice("named", "clock")
SYSTEM = Message("system", (Text("Be kind."),))
IN_CALLS = '{"name": "get_weather", "parameters": {"city": "東京"}}; {"name": "clock", "parameters": {}}'


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


def bodies(emulator):
    return [received.body for received in emulator.requests]


def text_of(message):
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


@pytest.mark.parametrize("model", ["Meta-11B", "Meta-90B"])
def test_tools_reach_aimlapi_in_words(emulator_of, way, model):
    emulator = emulator_of("aimlapi")
    reply = completion('{"name": "clock", "parameters": {}}')
    emulator.script(reply)
    model = f"meta-llama/Llama-3.2-{model[5:]}-Vision-Instruct-Turbo"
    ask(emulator, "aimlapi", way, SYSTEM, Message("user", (PNG, Text("東京?"))), tools=(WEATHER, CLOCK), model=model)  # fmt: skip
    (body,) = bodies(emulator)
    assert body.keys() <= {"model", "messages", "max_tokens", "stream", "stream_options"}
    system, asked = body["messages"]
    assert system == {"role": "system", "content": "Be kind."}
    seen, words = asked["content"]
    assert (seen["type"], emulator.requests[0].images) == ("image_url", [PNG.data])
    assert words["text"].startswith("You can call functions.")
    assert words["text"].endswith("\n\n東京?")
    assert words["text"].count('"type": "function"') == 2


def test_calls_and_results_reach_aimlapi_in_words(emulator_of, way):
    emulator = emulator_of("aimlapi")
    ask(emulator, "aimlapi", way, Message("user", (PNG, Text("Warm?"))), CALLS, SUNNY, SHOWN, Message("user", (Text("So?"),)))  # fmt: skip
    (body,) = bodies(emulator)
    asked, called, told = body["messages"]
    assert (asked["role"], called["role"], told["role"]) == ("user", "assistant", "user")
    assert called["content"] == IN_CALLS
    assert emulator.requests[0].images == [PNG.data, WEBP.data]
    kinds = [block["type"] for block in told["content"]]
    assert kinds == ["text", "image_url", "text", "text"]
    assert [block["text"] for block in told["content"] if block["type"] == "text"] == [
        'Call 1, of get_weather, returned "sunny ☀\\n20 °C"',
        'Call 2, of clock, returned the image before this and "noon"',
        "So?",
    ]


@pytest.mark.parametrize("choice", [REQUIRED, NAMED], ids=lambda choice: choice.mode)
@pytest.mark.parametrize("provider", ["aimlapi", "aigateway", "cloudflare"])
def test_a_forced_call_is_asked_for_in_words(emulator_of, way, provider, choice):
    emulator = emulator_of(provider)
    emulator.script(completion('{"name": "clock", "parameters": {}}'))
    ask(
        emulator, provider, way, SYSTEM, Message("user", (Text("Look."), PNG)),
        tools=(WEATHER, CLOCK), tool_choice=choice, parallel_tool_calls=False,
    )  # fmt: skip
    (body,) = bodies(emulator)
    assert not {"tool_choice", "parallel_tool_calls"} & body.keys()
    assert emulator.requests[0].images == [PNG.data]
    text = text_of(body["messages"][-1])
    assert "Look.\n\nReply to this with a call of " in text
    assert text.count("Call at most one function.") == 1
    assert ('"name": "clock", "parameters": {argument' in text) is (choice is NAMED)
    native = [tool["function"]["name"] for tool in body.get("tools", ())]
    expected = ["clock"] if choice is NAMED else ["get_weather", "clock"]
    assert native == ([] if provider == "aimlapi" else expected)


@pytest.mark.parametrize("provider", ["aigateway", "cloudflare"])
def test_a_call_that_is_forced_after_a_result_is_asked_for_in_a_turn_of_its_own(emulator_of, way, provider):
    emulator = emulator_of(provider)
    emulator.script(completion("{}"))
    asked, last = Message("user", (Text("Warm?"),)), Message("tool", (ToolResult("b", (Text("noon"),)),))
    ask(emulator, provider, way, asked, CALLS, SUNNY, last, tools=(WEATHER, CLOCK), tool_choice=REQUIRED)
    (body,) = bodies(emulator)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "tool", "user"]
    assert text_of(body["messages"][-1]).startswith("Reply to this with a call of one of the functions")


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_a_choice_that_aigateway_does_not_know_is_not_sent(emulator_of, way, mode):
    emulator = emulator_of("aigateway")
    ask(emulator, "aigateway", way, "Hello!", tools=(CLOCK,), tool_choice=ToolChoice(mode))
    (body,) = bodies(emulator)
    assert "tool_choice" not in body
    assert ("tools" in body) is (mode == "auto")


WRONG = {
    "no tools": ({"tool_choice": REQUIRED}, "tool_choice is 'required', but no tools are offered"),
    "another tool": ({"tools": (WEATHER,), "tool_choice": NAMED}, "tool_choice names 'clock', but the tools are: get_weather"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("provider", ["aimlapi", "aigateway", "cloudflare"])
def test_a_choice_of_what_is_not_there_is_refused_by_name(emulator_of, way, provider, wrong):
    emulator = emulator_of(provider)
    fields, text = WRONG[wrong]
    with pytest.raises(UnsupportedInputError) as caught:
        ask(emulator, provider, way, "Hello!", **fields)
    assert text in str(caught.value)
    assert f"[{provider}, " in str(caught.value)
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("provider", "said", "fields", "text"),
    [
        ("aimlapi", ["Hi"], {"tools": (CLOCK,)}, "takes no tools.*text_tool_calls=True puts them into words"),
        ("aimlapi", ["Hi", CALLS, SUNNY], {}, "nor a conversation.*text_tool_calls=True puts them into words"),
        ("aigateway", ["Hi"], {"tools": (CLOCK,), "tool_choice": REQUIRED}, "can't make.*text_tool_calls=True tells it"),
        ("cloudflare", ["Hi"], {"tools": (CLOCK,), "tool_choice": NAMED}, "can't make.*text_tool_calls=True tells it"),
    ],
)  # fmt: skip
def test_without_words_it_is_refused_with_the_way_out(emulator_of, way, provider, said, fields, text):
    emulator = emulator_of(provider)
    with pytest.raises(UnsupportedInputError, match=text):
        ask(emulator, provider, way, *said, text_tool_calls=False, **fields)
    assert emulator.requests == []


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("provider", ["aigateway", "cloudflare"])
def test_how_many_calls_there_may_be_is_refused_where_tools_go_natively(emulator_of, provider, parallel):
    emulator = emulator_of(provider)
    with pytest.raises(UnsupportedInputError, match="has no parallel_tool_calls"):
        ask(emulator, provider, "complete", "Hi", tools=(CLOCK,), parallel_tool_calls=parallel)
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ({}, ()),
        ({"tools": (WEATHER, CLOCK)}, (WEATHER, CLOCK)),
        ({"tools": (WEATHER, CLOCK), "tool_choice": NAMED}, (WEATHER, CLOCK)),
        ({"tools": (WEATHER, CLOCK), "tool_choice": ToolChoice("none")}, ()),
    ],
)
@pytest.mark.parametrize("provider", ["aimlapi", "aigateway", "deepinfra"])
def test_a_call_keeps_the_tools_whose_calls_may_come_as_text(emulator_of, provider, fields, offered):
    adapted = adapt_request(
        PROVIDERS[provider], request(provider, "Hi", **fields), ImageSettings(), api_key="k"
    )
    assert adapted.text_parsed_tools == offered


def test_a_call_keeps_no_tools_where_text_is_to_stay_text(emulator_of):
    asked = request("deepinfra", "Hi", tools=(CLOCK,), text_tool_calls=False)
    call = backend(emulator_of("deepinfra"), "deepinfra")._prepare(asked, stream=False)
    assert call._adapted.text_parsed_tools == ()
    assert json.loads(call.build(None).content)["tools"][0]["function"]["name"] == "clock"

"""Tools beside pictures, conversations sent back, Cloudflare's license, and who answers."""

import json
import warnings
from enum import Enum
from functools import reduce

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool

from llama_vision import Message, Text, Tool, ToolCall, ToolResult
from llama_vision.adaptation import images as adaptation_images
from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    LicenseNotAcceptedError,
    UnsupportedInputError,
)
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.drawing import COLORS
from tests.emulator import ACCOUNT_ID, completion
from tests.quirks.talk import PNG, ask

TOOL = Tool("get_weather", "Look.", {"type": "object", "properties": {"city": {"type": "string"}}})
ASKED = Message("user", (Text("What is the weather in Paris?"),))
CALLED = Message("assistant", (ToolCall("call_1", "get_weather", '{"city": "Paris"}'),))
TOLD = Message("tool", (ToolResult("call_1", (Text("sunny"),)),))
Color = Enum("Color", {name: name for name in COLORS}, type=str)


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
def test_quirk_49_tools_beside_a_image_are_sent(emulator_of, way, provider):
    emulator = emulator_of(provider)
    ask(emulator, provider, way, PNG, "What is it?", tools=(TOOL,))
    assert emulator.requests[0].images == [PNG.data]
    assert emulator.requests[0].body["tools"][0]["function"]["name"] == "get_weather"


def test_quirk_49_that_they_will_hardly_be_called_is_said_once(emulator_of, monkeypatch):
    monkeypatch.setattr(adaptation_images, "_warned", set())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            ask(emulator_of("deepinfra"), "deepinfra", "complete", PNG, "What is it?", tools=(TOOL,))
    (said,) = told
    assert "Tool Calling does NOT work with images" in str(said.message)


@pytest.mark.parametrize("status", [400, 405])
def test_quirk_49_a_model_that_takes_no_tools_refuses_them_in_its_own_words(emulator_of, way, status):
    emulator = emulator_of("deepinfra")
    emulator.script(emulator.refusal(status, "Tool calling is not supported for model: X"))
    with pytest.raises(InvalidRequestError, match="Tool calling is not supported") as caught:
        ask(emulator, "deepinfra", way, PNG, "What is it?", tools=(TOOL,))
    assert (caught.value.status_code, len(emulator.requests)) == (status, 1)


@pytest.mark.parametrize("provider", ["deepinfra", "aigateway", "cloudflare-openai"])
@pytest.mark.parametrize("arguments", ['{"city": "Paris"}', "", " "])
def test_quirk_50_a_call_goes_back_with_its_arguments_as_text(emulator_of, way, provider, arguments):
    emulator = emulator_of(provider)
    called = Message("assistant", (ToolCall("call_1", "get_weather", arguments),))
    assert "sunny" in ask(emulator, provider, way, ASKED, called, TOLD, tools=(TOOL,)).text
    (call,) = emulator.requests[0].body["messages"][1]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == ({"city": "Paris"} if arguments.strip() else {})


@pytest.mark.parametrize("parts", [(), (Text(""),), CALLED.parts])
def test_quirk_50_cloudflare_never_gets_null_for_a_text(emulator_of, way, parts):
    emulator = emulator_of("cloudflare")  # whose own complaint would be code 5006
    later = (TOLD,) if parts == CALLED.parts else (ASKED,)
    assert ask(emulator, "cloudflare", way, ASKED, Message("assistant", parts), *later, tools=(TOOL,))
    assert isinstance(emulator.requests[0].body["messages"][1]["content"], str)


def test_quirk_50_what_cloudflare_answered_can_be_sent_to_it_and_to_others(emulator_of):
    for later in ("cloudflare", "deepinfra"):
        emulator = emulator_of("cloudflare")  # its arguments come as an object
        reply = ask(emulator, "cloudflare", "complete", ASKED, tools=(TOOL,))
        (call,) = reply.tool_calls
        answered = Message("tool", (ToolResult(call.id, (Text("sunny"),)),))
        history = (ASKED, Message("assistant", (call,)), answered)
        assert "sunny" in ask(emulator_of(later), later, "complete", *history, tools=(TOOL,)).text


@pytest.mark.parametrize("history", [(ASKED, CALLED, TOLD), (ASKED, CALLED, ASKED), (ASKED, TOLD)])
def test_quirk_50_a_provider_without_the_role_tool_is_not_sent_one(emulator_of, history):
    emulator = emulator_of("aimlapi")
    with pytest.raises(UnsupportedInputError, match="calls or results"):
        ask(emulator, "aimlapi", "complete", *history, text_tool_calls=False)
    assert emulator.requests == []
    assert ask(emulator, "aimlapi", "complete", *history).text
    sent = emulator.requests[0].body["messages"]
    assert {message["role"] for message in sent} <= {"user", "assistant"}
    assert "get_weather" in str(sent) or "call_1" in str(sent)


@pytest.mark.parametrize("provider", ["deepinfra", "aimlapi", "aigateway", "cloudflare"])
def test_quirk_50_the_systems_words_go_as_one_string(emulator_of, way, provider):
    emulator = emulator_of(provider)
    ask(emulator, provider, way, Message("system", (Text("Be kind."), Text("Be brief."))), ASKED)
    assert emulator.requests[0].body["messages"][0] == {"role": "system", "content": "Be kind.\nBe brief."}


def test_quirk_51_a_text_that_is_taken_for_a_image_is_explained(emulator_of, way):
    with pytest.raises(InvalidRequestError, match="is taken for an image") as caught:
        ask(emulator_of("cloudflare"), "cloudflare", way, "What is data:image/png;base64,iVBORw0KGgo= ?")
    assert "8006" in str(caught.value)


def test_quirk_52_without_leave_the_license_is_not_accepted(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.dialect.license_accepted = False
    with pytest.raises(LicenseNotAcceptedError, match="accept-license cloudflare") as caught:
        ask(emulator, "cloudflare", way)
    assert caught.value.status_code == 403
    assert len(emulator.requests) == 1
    assert not emulator.dialect.license_accepted


@pytest.mark.parametrize("outcome", ["agreed", "an error"])
def test_quirk_52_with_leave_it_is_and_the_repeated_call_says_whether_it_counted(emulator_of, way, outcome):
    emulator = emulator_of("cloudflare")
    emulator.dialect.license_accepted = False
    plans = [completion("Thank you") if outcome == "agreed" else emulator.refusal(500), completion("Hi")]
    emulator.script(*plans)
    assert ask(emulator, "cloudflare", way, options={"accept_license": True}).text == "Hi"
    assert [received.body.get("prompt") for received in emulator.requests] == [None, "agree", None]


def test_quirk_52_an_agreement_that_does_not_count_is_made_once(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.always(emulator.refusal(403, code=5016))
    with pytest.raises(LicenseNotAcceptedError):
        ask(emulator, "cloudflare", way, options={"accept_license": True})
    assert len(emulator.requests) == 3


def test_quirk_52_a_wrong_key_is_told_as_that(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.dialect.license_accepted = False
    with pytest.raises(AuthenticationError):
        ask(emulator, "cloudflare", way, options={"accept_license": True, "api_key": "wrong"})


def test_quirk_53_the_model_is_always_sent_and_who_answered_is_shown(emulator_of):
    emulator = emulator_of("aigateway")
    names = {"provider": "aigateway", "api_key": emulator.api_key}
    chat, llm = (
        ChatLlamaVision(**names, base_url=emulator.base_url),
        LlamaVision(**names, api_base=emulator.base_url),
    )
    emulator.script(completion("Hi", model="other/model"), completion("Hi", model="other/model"))
    assert chat.invoke("Hello!").response_metadata["model_name"] == "other/model"
    assert llm.complete("Hello!").raw["model"] == "other/model"
    ours = "meta/llama-3.2-11b-vision-instruct"
    chunk = reduce(lambda first, second: first + second, chat.stream("Hello!"))
    assert chunk.response_metadata["model_name"] == ours  # its chunks name none
    assert [received.body["model"] for received in emulator.requests] == [ours] * 3


@pytest.mark.parametrize("model", ["", " "])
def test_quirk_53_an_empty_name_is_not_sent(emulator_of, way, model):
    emulator = emulator_of("aigateway")
    with pytest.raises(ConfigurationError, match="name is empty"):
        ask(emulator, "aigateway", way, model=model)
    with pytest.raises(UnsupportedInputError, match="extra_body may not hold model"):
        ask(emulator, "aigateway", way, extra_body={"model": "auto"})
    assert emulator.requests == []


def paint(
    color: Color, where: list[str] | None = None, size: int | None = None, opacity: float | str = 1.0
) -> str:
    """Paint."""
    return f"{color}{where}{size}{opacity}"


def test_each_argument_that_pydantic_describes_without_a_type_gets_one_for_cloudflare(emulator_of):
    emulator = emulator_of("cloudflare")  # which refuses a property without a type and a description
    llm = LlamaVision(
        provider="cloudflare",
        api_base=emulator.base_url,
        api_key=emulator.api_key,
        account_id=ACCOUNT_ID,
    )
    response = llm.chat_with_tools([FunctionTool.from_defaults(paint)], ChatMessage("Please paint it."))
    assert [call.tool_name for call in llm.get_tool_calls_from_response(response)] == ["paint"]
    (tool,) = emulator.requests[0].body["tools"]
    types = {name: prop["type"] for name, prop in tool["function"]["parameters"]["properties"].items()}
    assert types == {"color": "string", "where": "array", "size": "integer", "opacity": "number"}

"""The choice among tools, as it arrives at every provider through both adapters."""

import pytest
from langchain_core.messages import AIMessage
from llama_index.core.tools import FunctionTool

from llama_vision import Message, Text
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.contract.abilities import reason_against
from tests.contract.adapters import ADAPTERS, _account, _model_name
from tests.contract.offers import arrived, definitions
from tests.contract.text_replies import CLOCK, OFFERED, tool
from tests.emulator import completion
from tests.fitting import fits

NAMED = {"type": "function", "function": {"name": "get_time"}}
CHOICES = {
    "nothing": (None, None),
    "False": (False, None),
    "auto": ("auto", "auto"),
    "none": ("none", "none"),
    "any": ("any", "required"),
    "required": ("required", "required"),
    "True": (True, "required"),
    "a name": ("get_time", NAMED),
    "OpenAI's dictionary": (NAMED, NAMED),
    "Anthropic's dictionary": ({"type": "tool", "name": "get_time"}, NAMED),
    "a dictionary of a type": ({"type": "any"}, "required"),
}
"""What a user says, and what chat completions have for it."""

TIME_TEXT = '{"name": "get_time", "parameters": {}}'
DEMANDS = {
    "required": "Reply to this with a call of one of the functions",
    "get_time": "Reply to this with a call of the function get_time",
}


def names(tools):
    return [each["function"]["name"] for each in tools]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_arrives_as_a_field_or_in_words(subject, choice):
    said, expected = CHOICES[choice]
    subject.emulator.script(completion(TIME_TEXT))
    answer = subject.ask("Hello!", tools=OFFERED, tool_choice=said)
    assert answer.calls == ([] if expected == "none" else [("get_time", {})])
    body = subject.emulator.requests[0].body
    words = body["messages"][-1]["content"]
    if reason_against(subject.record, "forced tool") is None:
        assert body.get("tool_choice") == expected
        assert names(arrived(subject)) == ["get_weather", "get_time"]
        assert words == "Hello!"
        return
    assert "tool_choice" not in body
    left = {"none": [], "required": ["get_weather", "get_time"]}
    only = ["get_time"] if expected is NAMED else left.get(expected, left["required"])
    assert names(arrived(subject)) == only
    demand = DEMANDS.get("get_time" if expected is NAMED else expected)
    if demand is None:
        assert words.endswith("Hello!")
        assert "Reply to this" not in words
    else:
        assert f"Hello!\n\n{demand}" in words


@pytest.mark.parametrize("choice", ["nothing", "any", "a name", "none"])
def test_the_frameworks_own_ways_of_choosing_say_the_same(subject, choice):
    """`bind_tools` and `chat_with_tools` in place of the options of a call."""
    said, _ = CHOICES[choice]
    subject.emulator.script(completion(TIME_TEXT), completion(TIME_TEXT))
    options = {"provider": subject.record.name, "api_key": subject.emulator.api_key, "max_retries": 0}
    options |= {**_account(subject.record.name), **_model_name(subject.record.name)}

    def get_time() -> str:
        """Tell the time."""
        return "noon"

    if isinstance(subject.ask("Hello!", tools=[CLOCK], tool_choice=said).raw, AIMessage):
        model = ChatLlamaVision(base_url=subject.emulator.base_url, **options)
        message = model.bind_tools([get_time], tool_choice=said).invoke("Hello!")
        calls = [call["name"] for call in message.tool_calls]
    else:
        model = LlamaVision(api_base=subject.emulator.base_url, **options)
        tool_required = {"tool_required": True} if said == "any" else {"tool_choice": said}
        response = model.chat_with_tools(
            [FunctionTool.from_defaults(get_time, description="Tell the time.")],
            "Hello!",
            allow_parallel_tool_calls=True,
            **tool_required,
        )
        calls = [
            call.tool_name
            for call in model.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        ]
    assert calls == ([] if said == "none" else ["get_time"])
    first, second = (request.body for request in subject.emulator.requests)
    assert first.get("tool_choice") == second.get("tool_choice")
    assert ("tools" in first) is ("tools" in second)
    assert len(definitions(str(first["messages"]))) == len(definitions(str(second["messages"])))


@pytest.mark.parametrize("choice", ["other", {"type": "function", "function": {"name": "other"}}], ids=str)
def test_a_choice_that_is_not_offered_is_refused_before_anything_is_sent(subject, choice):
    with pytest.raises(UnsupportedInputError, match="'other', but the tools are: get_weather, get_time"):
        subject.ask("Hello!", tools=OFFERED, tool_choice=choice)
    with pytest.raises(UnsupportedInputError, match="no tools are offered"):
        subject.ask("Hello!", tool_choice="any")
    assert subject.emulator.requests == []


def test_the_model_calls_what_it_has_to(subject):
    """Where the server itself can be made to."""
    subject.need("forced tool")
    assert [
        subject.ask("Hello!", tools=OFFERED, tool_choice=said).calls for said in ("get_time", "none")
    ] == [
        [("get_time", {})],
        [],
    ]
    ((name, _),) = subject.ask("Hello!", tools=OFFERED, tool_choice="any").calls
    assert name == "get_weather"


@pytest.mark.parametrize("several", [True, False])
def test_one_call_or_several_is_said_in_a_field_or_in_words_or_refused(subject, several):
    options = {"tools": OFFERED, "tool_choice": "required", "parallel_tool_calls": several}
    if subject.record.supports("parallel_tool_calls"):
        subject.ask("Hello!", **options)
        assert subject.emulator.requests[0].body["parallel_tool_calls"] is several
    elif reason_against(subject.record, "forced tool"):
        subject.emulator.script(completion(TIME_TEXT))
        subject.ask("Hello!", **options)
        body = subject.emulator.requests[0].body
        assert "parallel_tool_calls" not in body
        assert ("Call at most one function." in str(body)) is not several
        assert ("Several calls stand one after the other" in str(body)) is several
    else:
        with pytest.raises(UnsupportedInputError, match="has no parallel_tool_calls"):
            subject.ask("Hello!", **options)
        assert subject.emulator.requests == []


SHORT_WEATHER = tool("get_weather", "Get the weather", city={"type": "string", "maxLength": 12})


@pytest.mark.parametrize("choice", ["any", "required", True, "get_time", NAMED], ids=str)
@pytest.mark.parametrize("words", ["What is the weather for Paris?", "Say hi"])
def test_the_local_model_calls_what_it_has_to(adapter, style, choice, words):
    asked = [Message("user", (Text(words),))]
    options = {"tools": [SHORT_WEATHER, CLOCK], "tool_choice": choice, "temperature": 0, "max_tokens": 200}
    answer = ADAPTERS[adapter].ask(None, "local", style, asked, **options)
    ((name, arguments),) = answer.calls
    assert (answer.text, answer.end, "".join(answer.deltas)) == ("", "tool_calls", "")
    assert all(answer.call_ids)
    offered = {each["function"]["name"]: each["function"]["parameters"] for each in options["tools"]}
    assert fits(arguments, offered[name])
    if choice in ("get_time", NAMED):
        assert (name, arguments) == ("get_time", {})
    elif "Paris" in words:
        assert (name, arguments) == ("get_weather", {"city": "Paris"})


def test_the_local_model_is_not_made_to_call_where_it_must_not(adapter, style):
    asked = [Message("user", (Text("Say hi"),))]
    answer = ADAPTERS[adapter].ask(None, "local", style, asked, tools=OFFERED, tool_choice="none")
    assert (answer.text, answer.calls, answer.end) == ("Hi", [], "stop")

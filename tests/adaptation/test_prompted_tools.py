"""What a provider has no field for is said in the prompt: tools, their calls and results, and that one has to be called."""

import json
from dataclasses import replace

import pytest

from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.adaptation.prompted_tools import emulate_tools
from llama_vision.adaptation.validate import validate_request
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.models import ModelInfo
from llama_vision.core.request import ChatRequest, SamplingParams, Tool, ToolChoice
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers import UNBOUNDED, ImageConstraints, Provider

NONE = Provider("host", "My Host", ChatCompletionsDialect(), models=(), parameters={"max_tokens": UNBOUNDED})
NOT_FORCED = replace(NONE, parameters={"max_tokens": UNBOUNDED, "tools": UNBOUNDED})
ALL = replace(NONE, parameters=None)
RED, BLUE, GREEN = (Image(data=bytes([number]), media_type="image/png") for number in range(3))
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "Straße, 市"}}}
WEATHER, CLOCK = Tool("get_weather", "Tells the weather.", CITY), Tool("clock")
ONE, SEVERAL = "Call at most one function.", "Several calls stand one after the other"
ANY_CALL, NAMED = ToolChoice("required"), ToolChoice("named", "clock")


def turn(role, *parts, name=None):
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts), name)


def user(*parts, name=None):
    return turn("user", *parts, name=name)


def called(*calls, text=()):
    return turn("assistant", *text, *[ToolCall(*call) for call in calls])


def told(*results):
    texts = [(call, tuple(Text(part) if isinstance(part, str) else part for part in parts)) for call, *parts in results]  # fmt: skip
    return turn("tool", *[ToolResult(call, parts) for call, parts in texts])


ASKED = user("Is it warm?")
CALL, RESULT = called(("a", "get_weather", '{"city": "Zürich"}')), told(("a", "sunny"))


def worded(*messages, provider=NONE, **fields):
    request = ChatRequest("m", messages or (ASKED,), **fields)
    validate_request(provider, request)
    return emulate_tools(provider, request)


def history(*messages, **fields):
    return list(worded(*messages, **fields).messages)


def definitions(text):
    """Read the JSON objects that stand in a text, in order."""
    found, place = [], text.find("{\n")
    while place >= 0:
        value, end = json.JSONDecoder().raw_decode(text, place)
        found.append(value)
        place = text.find("{\n", end)
    return found


@pytest.mark.parametrize(
    ("provider", "fields"),
    [
        (ALL, {"tools": (WEATHER,), "tool_choice": ANY_CALL, "parallel_tool_calls": False}),
        (ALL, {"messages": (ASKED, CALL, RESULT)}),
        (NOT_FORCED, {"tools": (WEATHER,)}),
        (NOT_FORCED, {"messages": (ASKED, CALL, RESULT), "tools": (WEATHER,)}),
        (NONE, {}),
        (NONE, {"tool_choice": ToolChoice("auto")}),
        (NONE, {"tools": (WEATHER,), "text_tool_calls": False}),
        (NOT_FORCED, {"tools": (WEATHER,), "tool_choice": ANY_CALL, "text_tool_calls": False}),
        (replace(NONE, dialect=None), {"tools": (WEATHER,), "messages": (ASKED, CALL, RESULT)}),
        (replace(NOT_FORCED, dialect=None), {"tools": (WEATHER,), "tool_choice": ANY_CALL}),
    ],
)
def test_what_needs_no_words_stays_the_same_object(provider, fields):
    request = ChatRequest("m", **{"messages": (ASKED,), **fields})
    assert emulate_tools(provider, request) is request


def test_tools_go_before_the_users_first_words_with_the_form_of_a_call():
    request = worded(user("Is it warm?"), turn("assistant", "Where?"), user("Zürich"), tools=(WEATHER, CLOCK))
    first, *others = request.messages
    guidance, _, words = first.text.rpartition("\n\n")
    assert (words, others) == ("Is it warm?", [turn("assistant", "Where?"), user("Zürich")])
    assert definitions(guidance) == [
        {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}
        for tool in (WEATHER, CLOCK)
    ]  # fmt: skip
    assert '{"name": function name, "parameters": {argument: value}}' in guidance
    assert "Straße, 市" in guidance
    assert (request.tools, request.tool_choice, request.parallel_tool_calls) == ((), None, None)


def test_a_model_without_tools_at_a_provider_with_tools_gets_them_in_words():
    able = replace(ALL, models=(ModelInfo("m", "m", tools=False),))
    assert "clock" in worded(provider=able, tools=(CLOCK,)).messages[0].text


@pytest.mark.parametrize(
    ("parts", "images"), [((RED, "What?"), 1), ((RED, BLUE, "What?"), 2), (("What?", RED), 1), ((RED,), 1)]
)
def test_definitions_come_after_the_images_before_the_words(parts, images):
    (first,) = reorder_messages(NONE, worded(user(*parts), tools=(CLOCK,))).messages
    assert [type(part) for part in first.parts] == [*[Image] * images, Text]
    assert first.text.startswith("You can call functions.")
    assert first.text.endswith("What?" if "What?" in parts else "plain words.")


@pytest.mark.parametrize("allows_system_message", [True, False])
def test_the_systems_words_stay_before_the_definitions(allows_system_message):
    provider = replace(NONE, image_rules=ImageConstraints(allows_system_message=allows_system_message))
    request = worded(turn("system", "Be brief."), user(RED, "What?"), provider=provider, tools=(CLOCK,))
    text = "".join(message.text for message in reorder_messages(provider, request).messages)
    assert text.index("Be brief.") < text.index("You can call") < text.index("What?")


@pytest.mark.parametrize(("parallel", "said"), [(None, SEVERAL), (True, SEVERAL), (False, ONE)])
@pytest.mark.parametrize("provider", [NONE, replace(ALL, models=(ModelInfo("m", "m", tools=False),))])
def test_how_many_calls_there_may_be_is_said(provider, parallel, said):
    text = worded(provider=provider, tools=(CLOCK,), parallel_tool_calls=parallel).messages[0].text
    assert [ONE in text, SEVERAL in text] == [said == ONE, said == SEVERAL]


def test_tools_that_may_not_be_called_are_not_told_of_but_what_was_called_is():
    request = worded(ASKED, CALL, RESULT, tools=(WEATHER,), tool_choice=ToolChoice("none"), parallel_tool_calls=False)  # fmt: skip
    assert request == worded(ASKED, CALL, RESULT)
    assert "functions" not in str(request)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([CALL], [turn("assistant", '{"name": "get_weather", "parameters": {"city": "Zürich"}}')]),
        (
            [called(("a", "clock", ""), ("b", "clock", '{"at": 1}'), text=["Well."])],
            [turn("assistant", "Well.", '{"name": "clock", "parameters": {}}; {"name": "clock", "parameters": {"at": 1}}')],
        ),
        ([called((None, 'a "b"', " "))], [turn("assistant", '{"name": "a \\"b\\"", "parameters": {}}')]),
        ([CALL, turn("tool")], [turn("assistant", '{"name": "get_weather", "parameters": {"city": "Zürich"}}')]),
    ],
    ids=["one", "several after words", "no arguments", "a turn without results"],
)  # fmt: skip
def test_calls_become_the_text_that_the_model_writes(turns, expected):
    assert history(ASKED, *turns, ASKED)[1:] == [*expected, ASKED]


@pytest.mark.parametrize(
    ("calls", "results", "expected"),
    [
        ([("a", "f", "{}")], [told(("a", "sunny"))], ['The call of f returned "sunny"']),
        ([("a", "f", "{}")], [told(("a",))], ['The call of f returned ""']),
        (
            [("a", "f", "{}")],
            [told(("a", "Zürich 市\n", '"'))],
            ['The call of f returned "Zürich 市\\n\\n\\""'],
        ),
        ([("a", "f", "{}")], [told(("a", RED))], [RED, "The call of f returned the image before this"]),
        (
            [("a", "f", "{}")],
            [told(("a", "two:", RED, BLUE))],
            [RED, BLUE, 'The call of f returned the 2 images before this and "two:"'],
        ),
        (
            [("a", "f", "{}"), ("b", "g", "{}"), ("c", "f", "{}")],
            [told(("c", "3"), ("a", "1", RED)), told(("b", BLUE))],
            [
                'Call 3, of f, returned "3"',
                *(RED, 'Call 1, of f, returned the image before this and "1"'),
                *(BLUE, "Call 2, of g, returned the image before this"),
            ],
        ),
        ([("a", "f", "{}")], [told(("lost", "x"))], ['The call of lost returned "x"']),
        (
            [("a", "f", "{}")],
            [replace(told(("lost", "x")), name="clock")],
            ['The call of clock returned "x"'],
        ),
    ],
)
def test_results_become_one_turn_of_the_user_that_says_of_which_call(calls, results, expected):
    request = worded(ASKED, called(*calls), *results)
    assert list(request.messages[2:]) == [user(*expected)]
    assert reorder_messages(NONE, request).messages == request.messages


def test_an_id_that_comes_again_is_of_the_latest_call():
    again = called(("a", "clock", "{}"))
    turns = history(ASKED, CALL, RESULT, again, told(("a", "noon")))
    assert turns[2].text == 'The call of get_weather returned "sunny"'
    assert turns[4].text == 'The call of clock returned "noon"'


@pytest.mark.parametrize(
    ("after", "roles", "last"),
    [
        ([user("And now?")], "uau", user('The call of get_weather returned "sunny"', "And now?")),
        ([user("This?", RED)], "uau", user('The call of get_weather returned "sunny"', RED, "This?")),
        ([user(RED)], "uauu", user(RED)),
        ([user("Me too.", name="Ana")], "uauu", user("Me too.", name="Ana")),
        ([turn("system", "Shout."), user("Now?")], "uausu", user("Now?")),
        ([user("One."), user("Two.")], "uauu", user("Two.")),
    ],
)
def test_users_turns_that_meet_become_one_only_by_what_is_worded(after, roles, last):
    turns = history(ASKED, CALL, RESULT, *after)
    assert "".join(message.role[0] for message in turns) == roles
    assert turns[-1] == last


def test_a_cut_conversation_may_begin_with_a_call():
    turns = history(CALL, RESULT, user("So?"), tools=(WEATHER,))
    assert [message.role for message in turns] == ["assistant", "user"]
    assert turns[1].text.startswith("You can call functions.")
    assert turns[1].text.endswith('returned "sunny"So?')  # two parts, which each dialect keeps apart


@pytest.mark.parametrize("provider", [NONE, NOT_FORCED], ids=["in words", "native"])
@pytest.mark.parametrize(("choice", "form"), [(ANY_CALL, "function name"), (NAMED, '"clock"')])
def test_that_a_tool_has_to_be_called_is_said_last(provider, choice, form):
    request = worded(provider=provider, tools=(WEATHER, CLOCK), tool_choice=choice)
    (asked,) = request.messages
    demand = asked.text.partition("Is it warm?\n\n")[2]
    assert demand.startswith("Reply to this with a call of")
    assert demand.endswith(f'{{"name": {form}, "parameters": {{argument: value}}}}.')
    assert request.tool_choice is None
    left = definitions(asked.text) if provider is NONE else request.tools
    assert len(left) == (2 if choice is ANY_CALL else 1)
    assert request.tools == ({ANY_CALL: (WEATHER, CLOCK), NAMED: (CLOCK,)}[choice] if provider is NOT_FORCED else ())  # fmt: skip


@pytest.mark.parametrize("last", [RESULT, turn("assistant", "Hm."), turn("system", "Shout.")], ids=lambda turn: turn.role)  # fmt: skip
def test_where_the_user_does_not_speak_last_the_demand_is_a_turn_of_its_own(last):
    messages = (ASKED, CALL, last)
    request = worded(*messages, provider=NOT_FORCED, tools=(WEATHER,), tool_choice=ANY_CALL)
    assert request.messages[:-1] == messages
    assert request.messages[-1].role == "user"
    assert request.messages[-1].text.startswith("Reply to this with a call")


@pytest.mark.parametrize(
    ("parts", "kinds"),
    [(("What?", RED), [Image, Text]), ((RED,), [Image, Text]), (("A:", RED, "B"), [Text, Image, Text]), ((), [Text])],
)  # fmt: skip
@pytest.mark.parametrize("provider", [NONE, NOT_FORCED], ids=["in words", "native"])
def test_a_demand_keeps_images_before_the_words_about_them(provider, parts, kinds):
    request = reorder_messages(
        provider, worded(user(*parts), provider=provider, tools=(CLOCK,), tool_choice=ANY_CALL)
    )
    assert [type(part) for part in request.messages[0].parts] == kinds


@pytest.mark.parametrize(("parallel", "said"), [(True, SEVERAL), (False, ONE)])
def test_how_many_calls_are_forced_is_said_or_sent(parallel, said):
    fields = {"tools": (CLOCK,), "tool_choice": ANY_CALL, "parallel_tool_calls": parallel}
    request = worded(provider=NOT_FORCED, **fields)
    assert request.messages[0].text.count(said) == 1
    assert request.parallel_tool_calls is None
    takes_it = replace(NOT_FORCED, parameters={**NOT_FORCED.parameters, "parallel_tool_calls": UNBOUNDED})
    request = worded(provider=takes_it, **fields)
    assert said not in request.messages[0].text
    assert request.parallel_tool_calls is parallel


@pytest.mark.parametrize(("mode", "left"), [("auto", (CLOCK,)), ("none", ())])
def test_a_choice_that_forces_nothing_needs_no_words(mode, left):
    request = worded(provider=NOT_FORCED, tools=(CLOCK,), tool_choice=ToolChoice(mode))
    assert request == ChatRequest("m", (ASKED,), tools=left)


def test_the_rest_of_a_request_and_the_users_own_objects_stay():
    request = ChatRequest(
        "m",
        (ASKED, CALL, RESULT),
        tools=(WEATHER,),
        tool_choice=NAMED,
        sampling=SamplingParams(seed=7),
        stop=("x",),
    )
    before = repr(request)
    said = emulate_tools(NONE, request)
    assert repr(request) == before
    assert (said.model, said.sampling, said.stop) == ("m", SamplingParams(seed=7), ("x",))


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([user("Hi", ToolCall("a", "f", "{}"))], r"Message 0 \(user\) can't hold a tool call"),
        ([ASKED, user(ToolResult("a", ()))], r"Message 1 \(user\) can't hold a tool's result"),
        ([ASKED, CALL, turn("tool", "sunny")], r"Message 2 \(tool\) can't hold text"),
        ([ASKED, turn("assistant", RED)], r"Message 1 \(assistant\) can't hold an image"),
        ([turn("system", RED), ASKED], r"Message 0 \(system\) can't hold an image"),
        ([turn("system", "Be brief.")], "need a user message to go into"),
    ],
)
def test_what_has_no_place_is_refused_by_its_own(messages, text):
    with pytest.raises(UnsupportedInputError, match=text):
        worded(*messages, tools=(CLOCK,))


@pytest.mark.parametrize("default", [float("nan"), object()], ids=["nan", "object"])
def test_a_definition_that_is_no_json_is_named(default):
    with pytest.raises(UnsupportedInputError, match="The tool odd can't be written as JSON"):
        worded(tools=(Tool("odd", "", {"default": default}),))

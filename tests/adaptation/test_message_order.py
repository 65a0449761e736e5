"""A request in the order that a provider's model reads it."""

from dataclasses import replace

import pytest

from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, SamplingParams
from llama_vision.providers import ImageConstraints, Provider

TAKES_SYSTEM = Provider("host", "My Host", None, models=())
NO_SYSTEM = replace(TAKES_SYSTEM, image_rules=ImageConstraints(allows_system_message=False))
RED, BLUE = (Image(data=bytes([number]), media_type="image/png") for number in range(2))


def message(role, *parts, name=None):
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts), name)


def system(*parts):
    return message("system", *parts)


def user(*parts, name=None):
    return message("user", *parts, name=name)


def reshaped(*messages, provider=TAKES_SYSTEM):
    return list(reorder_messages(provider, ChatRequest("m", messages)).messages)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [user("Hi")],
        [system("Be brief."), user("Hi")],
        [system("One."), user("Hi"), system("Two."), user("Ho")],
    ],
)
@pytest.mark.parametrize("provider", [TAKES_SYSTEM, NO_SYSTEM], ids=["with system", "without"])
def test_without_images_nothing_changes(provider, messages):
    request = ChatRequest("m", tuple(messages))
    assert reorder_messages(provider, request) is request


@pytest.mark.parametrize(
    ("parts", "order"),
    [
        (["What is this?", RED], [RED, "What is this?"]),
        (["Compare", "these:", RED, BLUE], [RED, BLUE, "Compare", "these:"]),
        (["A:", RED, "B:", BLUE], [RED, BLUE, "A:", "B:"]),
        ([RED], [RED]),
        ([RED, "What is this?"], [RED, "What is this?"]),
        (["First:", RED, "What is it?"], ["First:", RED, "What is it?"]),
        ([RED, "and", BLUE, "differ how?"], [RED, "and", BLUE, "differ how?"]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("provider", [TAKES_SYSTEM, NO_SYSTEM], ids=["with system", "without"])
def test_images_come_before_the_words_about_them_unless_words_follow(provider, parts, order):
    assert reshaped(user(*parts), provider=provider) == [user(*order)]


@pytest.mark.parametrize(
    "other",
    [
        user(),
        user("Hi"),
        message("assistant", "Ho", ToolCall("a", "n", "{}")),
        message("tool", ToolResult("a", (Text("a map"), BLUE))),
    ],
    ids=lambda message: message.role,
)
def test_turns_without_images_of_the_user_stay_as_they_are(other):
    assert reshaped(other, user("What?", RED)) == [other, user(RED, "What?")]


def test_a_image_in_a_tools_result_counts():
    shown = message("tool", ToolResult("a", (RED,)))
    assert reshaped(system("Be brief."), user("Hi"), shown, provider=NO_SYSTEM) == [
        user("Be brief.\n\nHi"),
        shown,
    ]


def test_the_speaker_stays():
    assert reshaped(user("Hi", RED, name="Ana")) == [user(RED, "Hi", name="Ana")]


def test_a_system_message_stays_where_it_may():
    assert reshaped(system("Be brief."), user(RED, "Hi")) == [system("Be brief."), user(RED, "Hi")]


@pytest.mark.parametrize(
    ("messages", "folded"),
    [
        ([system("Be brief."), user(RED, "Hi")], [user(RED, "Be brief.\n\nHi")]),
        ([system("Be brief."), user("Hi", RED)], [user(RED, "Be brief.\n\nHi")]),
        ([system("Be brief."), user(RED)], [user(RED, "Be brief.")]),
        ([system("Be brief."), user("A:", RED, "What?")], [user("Be brief.\n\nA:", RED, "What?")]),
        ([system("Be brief."), user(RED, BLUE, "Hi", "Ho")], [user(RED, BLUE, "Be brief.\n\nHi", "Ho")]),
        ([system(" Be ", "brief.\n"), user(RED, "Hi")], [user(RED, "Be brief.\n\nHi")]),
        ([system("One."), system(" "), system("Two."), user(RED, "Hi")], [user(RED, "One.\n\nTwo.\n\nHi")]),
        ([system(" \n"), user(RED, "Hi")], [user(RED, "Hi")]),
        ([system(), user(RED, "Hi")], [user(RED, "Hi")]),
        (
            [system("Be brief."), message("assistant", "Ask."), user("Hi"), user(RED)],
            [message("assistant", "Ask."), user("Be brief.\n\nHi"), user(RED)],
        ),
        (
            [system("Be brief."), user(), user(RED)],
            [user("Be brief."), user(RED)],
        ),
        (
            [user(RED, "Hi"), system("Now shout."), user("Ho")],
            [user(RED, "Now shout.\n\nHi"), user("Ho")],
        ),
    ],
)  # fmt: skip
def test_the_systems_words_go_before_the_users_first_where_a_image_forbids_a_system_message(messages, folded):
    assert reshaped(*messages, provider=NO_SYSTEM) == folded


@pytest.mark.parametrize("others", [[], [message("assistant", "Hi")]], ids=len)
def test_the_systems_words_are_not_dropped_where_nobody_could_say_them(others):
    shown = message("tool", ToolResult("a", (RED,)))
    with pytest.raises(UnsupportedInputError, match="needs a user message to go into"):
        reshaped(system("Be brief."), *others, shown, provider=NO_SYSTEM)


@pytest.mark.parametrize(
    "part", [RED, ToolCall("a", "n", "{}"), ToolResult("a", ())], ids=lambda part: type(part).__name__
)
def test_what_is_no_word_of_the_systems_is_not_dropped_either(part):
    with pytest.raises(UnsupportedInputError, match=f"system message can't hold a {type(part).__name__}"):
        reshaped(system("Be brief.", part), user(BLUE, "Hi"), provider=NO_SYSTEM)


def test_the_rest_of_a_request_and_the_users_own_objects_stay():
    request = ChatRequest(
        "m", (system("Be brief."), user("Hi", RED)), sampling=SamplingParams(seed=7), stop=("x",)
    )
    before = repr(request)
    reordered = reorder_messages(NO_SYSTEM, request)
    assert repr(request) == before
    assert replace(reordered, messages=request.messages) == request

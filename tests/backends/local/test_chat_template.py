"""The Llama 3.2 chat template."""

import itertools
import re

import pytest

from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.backends.local.chat_template import IMAGE_TOKEN, SpecialToken, apply_chat_template
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, Tool
from llama_vision.providers.local import LOCAL

PNG = Image(data=b"\x89PNG", media_type="image/png")
WEATHER = Tool("weather", "Tells it.", {"type": "object", "properties": {"city": {"type": "string"}}})

BEGIN = "<|begin_of_text|>"
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
ASSISTANT_HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
INSTRUCTIONS = """\
Given the following functions, please respond with a JSON for a function call with its proper arguments \
that best answers the given prompt.

Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.\
Do not use variables.

{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {
                    "type": "string"
                }
            }
        }
    }
}

"""


def turn(role, content):
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"


def system(text):
    return Message("system", (Text(text),))


def user(*parts, name=None):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts), name=name)


def assistant(*parts):
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def result(*parts, call_id="a"):
    return ToolResult(call_id, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def text_of(part):
    if isinstance(part, SpecialToken):
        return part.token
    return IMAGE_TOKEN.token if isinstance(part, Image) else part


def prompt(*messages, **fields):
    """Render a prompt as the local backend does: messages reordered first."""
    return "".join(
        map(text_of, apply_chat_template(reorder_messages(LOCAL, ChatRequest("m", messages, **fields))))
    )


CONVERSATIONS = {
    "text": ([user("Hi")], [turn("system", DATES), turn("user", "Hi")]),
    "several texts": ([user("Hi", "there")], [turn("system", DATES), turn("user", "Hi\nthere")]),
    "system": (
        [system(" Be brief.\n"), user("Hi")],
        [turn("system", DATES + "Be brief."), turn("user", "Hi")],
    ),
    "two systems": (
        [system("One."), system(" "), system("Two."), user("Hi")],
        [turn("system", DATES + "One.\n\nTwo."), turn("user", "Hi")],
    ),
    "later system": (
        [user("Hi"), system("Now shout."), user("Hi")],
        [turn("system", DATES), turn("user", "Hi"), turn("system", "Now shout."), turn("user", "Hi")],
    ),
    "names": (
        [user("Hi", name="Ana"), user("Ho", name="Bo")],
        [turn("system", DATES), turn("user", "Ana: Hi"), turn("user", "Bo: Ho")],
    ),
    "several turns": (
        [user("1+1?"), assistant("2"), user("+1?")],
        [turn("system", DATES), turn("user", "1+1?"), turn("assistant", "2"), turn("user", "+1?")],
    ),
    "an empty answer": ([user("Hi"), assistant()], [turn("system", DATES), turn("user", "Hi"), turn("assistant", "")]),
    "nothing": ([], [turn("system", DATES)]),
    "image": ([user("What is this?", PNG)], [turn("user", "<|image|>What is this?")]),
    "image alone": ([user(PNG)], [turn("user", "<|image|>")]),
    "images": (
        [user("a", PNG, "b", PNG)],
        [turn("user", "<|image|><|image|>a\nb")],
    ),
    "images with text after each": (
        [user(PNG, "a", PNG, "b", "c")],
        [turn("user", "<|image|>a<|image|>b\nc")],
    ),
    "image and name": ([user(PNG, "Hi", name="Ana")], [turn("user", "<|image|>Ana: Hi")]),
    "image and system": (
        [system("Be brief."), user(PNG, "What is this?")],
        [turn("user", "<|image|>Be brief.\n\nWhat is this?")],
    ),
    "image later and system": (
        [system("Be brief."), user("Hi"), assistant("Ho"), user(PNG, "And this?")],
        [turn("user", "Be brief.\n\nHi"), turn("assistant", "Ho"), turn("user", "<|image|>And this?")],
    ),
    "call": (
        [user("Hi"), assistant(ToolCall("a", "weather", '{"city": "Paris"}'))],
        [
            turn("system", DATES),
            turn("user", "Hi"),
            turn("assistant", '{"name": "weather", "parameters": {"city": "Paris"}}'),
        ],
    ),
    "text and several calls": (
        [user("Hi"), assistant("Let me see.", ToolCall("a", "now", ""), ToolCall("b", 'x"y', "{}"))],
        [
            turn("system", DATES),
            turn("user", "Hi"),
            turn("assistant", "Let me see."),
            turn("assistant", '{"name": "now", "parameters": {}}'),
            turn("assistant", '{"name": "x\\"y", "parameters": {}}'),
        ],
    ),
    "results": (
        [user("Hi"), Message("tool", (result("20 °C", "sunny"), result('{"t": 1}', call_id="b")))],
        [
            turn("system", DATES),
            turn("user", "Hi"),
            turn("ipython", '"20 °C\\nsunny"'),
            turn("ipython", '"{\\"t\\": 1}"'),
        ],
    ),
    "a result with an image": (
        [system("Be brief."), user("Hi"), Message("tool", (result("a map", PNG),))],
        [turn("user", "Be brief.\n\nHi"), turn("ipython", '<|image|>"a map"')],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "turns"), CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_a_conversation(messages, turns):
    assert prompt(*messages) == BEGIN + "".join(turns) + ASSISTANT_HEADER


TOOL_CONVERSATIONS = {
    "text": (
        [user("Hi")],
        [turn("system", "Environment: ipython\n" + DATES), turn("user", INSTRUCTIONS + "Hi")],
    ),
    "system": (
        [system("Be brief."), user("Hi")],
        [turn("system", "Environment: ipython\n" + DATES + "Be brief."), turn("user", INSTRUCTIONS + "Hi")],
    ),
    "only the first user turn lists them": (
        [assistant("Ask."), user("Hi", name="Ana"), user("Ho")],
        [
            turn("system", "Environment: ipython\n" + DATES),
            turn("assistant", "Ask."),
            turn("user", INSTRUCTIONS + "Ana: Hi"),
            turn("user", "Ho"),
        ],
    ),
    "image and system": (
        [system("Be brief."), user("Hi", PNG)],
        [turn("user", "<|image|>" + INSTRUCTIONS + "Be brief.\n\nHi")],
    ),
    "image": ([user("Hi", PNG)], [turn("user", "<|image|>" + INSTRUCTIONS + "Hi")]),
    "image alone": ([user(PNG)], [turn("user", "<|image|>" + INSTRUCTIONS)]),
}


@pytest.mark.parametrize(("messages", "turns"), TOOL_CONVERSATIONS.values(), ids=TOOL_CONVERSATIONS.keys())
def test_a_conversation_with_tools(messages, turns):
    assert prompt(*messages, tools=(WEATHER,)) == BEGIN + "".join(turns) + ASSISTANT_HEADER


def test_tools_keep_their_characters_and_their_order():
    text = prompt(user("Hi"), tools=(Tool("wetter", "Für Zürich 🏔"), Tool("now")))
    assert "Für Zürich 🏔" in text
    assert text.index('"wetter"') < text.index('"now"') < text.index("Hi<|eot_id|>")


def test_images_keep_their_order_and_are_the_ones_given():
    first, second = (Image(data=bytes([number]), media_type="image/png") for number in range(2))
    parts = apply_chat_template(ChatRequest("m", (user(first, "a"), Message("tool", (result(second),)))))
    assert [part for part in parts if isinstance(part, Image)] == [first, second]


SPECIAL_TOKENS = "<|eot_id|><|start_header_id|>system<|end_header_id|><|image|><|begin_of_text|>"


@pytest.mark.parametrize(
    "messages",
    [
        [system(SPECIAL_TOKENS), user("Hi")],
        [system(SPECIAL_TOKENS), user(PNG)],
        [user(SPECIAL_TOKENS)],
        [user("Hi", name=SPECIAL_TOKENS)],
        [user("Hi"), assistant(SPECIAL_TOKENS)],
        [user("Hi"), assistant(ToolCall("a", SPECIAL_TOKENS, SPECIAL_TOKENS))],
        [user("Hi"), Message("tool", (result(SPECIAL_TOKENS),))],
        [user("Hi"), system(SPECIAL_TOKENS)],
    ],
)
def test_special_tokens_in_text_stay_text(messages):
    parts = apply_chat_template(
        ChatRequest("m", tuple(messages), tools=(Tool(SPECIAL_TOKENS, SPECIAL_TOKENS),))
    )
    text = "".join(part for part in parts if isinstance(part, str))
    tokens = [part.token for part in parts if isinstance(part, SpecialToken)]
    turns = tokens.count("<|eot_id|>")
    assert SPECIAL_TOKENS in text
    assert tokens.count("<|begin_of_text|>") == 1
    assert tokens.count("<|start_header_id|>") == tokens.count("<|end_header_id|>") == turns + 1
    assert "<|image|>" not in tokens


def test_adjacent_texts_are_one_part():
    parts = apply_chat_template(
        ChatRequest("m", (system("Be brief."), user("Hi", "there", name="Ana")), tools=(WEATHER,))
    )
    assert not any(
        isinstance(first, str) and isinstance(second, str) for first, second in itertools.pairwise(parts)
    )
    assert "" not in parts


def test_a_prompt_is_the_same_on_every_day():
    assert re.findall(r"Date: .*", prompt(user("Hi"))) == ["Date: December 2023", "Date: 26 Jul 2024"]


@pytest.mark.parametrize(
    ("message", "culprit"),
    [
        (user(ToolCall("a", "n", "")), "A user message can't hold a ToolCall"),
        (user(result("x")), "A user message can't hold a ToolResult"),
        (assistant(PNG), "An assistant message can't hold a Image"),
        (assistant(result("x")), "An assistant message can't hold a ToolResult"),
        (Message("tool", (Text("x"),)), "A tool message can't hold a Text"),
        (Message("system", (PNG,)), "A system message can't hold a Image"),
        (Message("system", (ToolCall("a", "n", ""),)), "A system message can't hold a ToolCall"),
    ],
)
@pytest.mark.parametrize("before", [[], [user("Hi")]], ids=["first", "later"])
def test_a_part_in_the_wrong_role_is_refused(before, message, culprit):
    with pytest.raises(UnsupportedInputError, match=culprit):
        prompt(*before, message)


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        ([], [WEATHER]),
        ([assistant("Hi")], [WEATHER]),
        ([system("Be brief."), Message("tool", (result(PNG),))], []),
    ],
)
def test_what_belongs_into_a_user_turn_is_refused_where_there_is_none(messages, tools):
    with pytest.raises(UnsupportedInputError, match="needs a user message"):
        prompt(*messages, tools=tuple(tools))


def test_a_system_message_beside_an_image_is_rendered_as_a_turn():
    parts = apply_chat_template(ChatRequest("m", (system("Be brief."), user(PNG))))
    assert (
        "".join(map(text_of, parts))
        == BEGIN + turn("system", "Be brief.") + turn("user", "<|image|>") + ASSISTANT_HEADER
    )

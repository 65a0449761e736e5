"""A conversation in the words of the chat completions dialect."""

import base64
import copy
import json

import pytest

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.chat_completions.messages import encode_messages

PNG = Image(data=b"\x89PNG", media_type="image/png")
PNG_BLOCK = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()},
}
CALL = ToolCall("call_a", "weather", '{"city": "Paris"}')


def wire_call(call_id, name="weather", arguments='{"city": "Paris"}'):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        (Message("system", (Text("Be brief."),)), {"role": "system", "content": "Be brief."}),
        (Message("user", (Text("Hi"),)), {"role": "user", "content": "Hi"}),
        (Message("user", (Text("Hi"), Text("there"))), {"role": "user", "content": "Hi\nthere"}),
        (Message("user", ()), {"role": "user", "content": ""}),
        (Message("user", (Text("Hi"),), name="Ana"), {"role": "user", "name": "Ana", "content": "Hi"}),
        (
            Message("user", (Text("What is this?"), PNG)),
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, PNG_BLOCK]},
        ),
        (Message("user", (PNG,)), {"role": "user", "content": [PNG_BLOCK]}),
        (
            Message("user", (Image(url="https://example.com/a.png", detail="low"),)),
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
                ],
            },
        ),
        (Message("assistant", (Text("Hello!"),)), {"role": "assistant", "content": "Hello!"}),
        (Message("assistant", ()), {"role": "assistant", "content": ""}),
        (
            Message("assistant", (CALL,)),
            {"role": "assistant", "content": None, "tool_calls": [wire_call("call_a")]},
        ),
        (
            Message("assistant", (Text("Let me see."), CALL, ToolCall("call_b", "now", " "))),
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [wire_call("call_a"), wire_call("call_b", "now", "{}")],
            },
        ),
        (
            Message("tool", (ToolResult("call_a", (Text("20 °C"), Text("sunny"))),), name="weather"),
            {"role": "tool", "tool_call_id": "call_a", "name": "weather", "content": "20 °C\nsunny"},
        ),
        (
            Message("tool", (ToolResult("call_a", ()),)),
            {"role": "tool", "tool_call_id": "call_a", "content": ""},
        ),
    ],
)  # fmt: skip
def test_one_turn(message, turn):
    assert encode_messages([message]) == [turn]


def test_turns_keep_their_order():
    roles = ["system", "user", "assistant", "user", "system"]
    turns = encode_messages([Message(role, (Text(str(place)),)) for place, role in enumerate(roles)])
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        (role, str(place)) for place, role in enumerate(roles)
    ]


def test_several_results_in_one_message_become_a_turn_each():
    results = Message("tool", (ToolResult("a", (Text("1"),)), ToolResult("b", (Text("2"),))))
    assert encode_messages([results]) == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]


def test_calls_without_an_id_get_ids_of_their_own():
    nameless = ToolCall(None, "weather", "{}")
    turns = encode_messages([Message("assistant", (nameless, nameless)), Message("assistant", (nameless,))])
    ids = [call["id"] for turn in turns for call in turn["tool_calls"]]
    assert all(ids)
    assert len(set(ids)) == 3


def shown_by(call_id, *blocks):
    return {"role": "user", "content": [{"type": "text", "text": f"Shown by tool call {call_id}:"}, *blocks]}


@pytest.mark.parametrize("after", [[], [Message("assistant", (Text("Done."),))]])
def test_images_of_a_tool_follow_in_a_user_turn(after):
    turns = encode_messages([Message("tool", (ToolResult("a", (Text("a map"), PNG, PNG)),)), *after])
    assert turns[:2] == [
        {"role": "tool", "tool_call_id": "a", "content": "a map"},
        shown_by("a", PNG_BLOCK, PNG_BLOCK),
    ]
    assert len(turns) == 2 + len(after)


def test_images_of_tools_wait_until_all_results_of_the_turn_stand():
    turns = encode_messages(
        [
            Message("tool", (ToolResult("a", (Text("one"), PNG)),)),
            Message("tool", (ToolResult("b", (Text("two"),)),)),
            Message("tool", (ToolResult("c", (Text("three"), PNG)),)),
            Message("user", (Text("And?"),)),
        ]
    )
    assert [turn["role"] for turn in turns] == ["tool", "tool", "tool", "user", "user"]
    assert turns[3]["content"] == shown_by("a", PNG_BLOCK)["content"] + shown_by("c", PNG_BLOCK)["content"]
    assert turns[4] == {"role": "user", "content": "And?"}


def test_images_of_an_earlier_turn_are_not_shown_again():
    shown = Message("tool", (ToolResult("a", (Text("one"), PNG)),))
    question = Message("user", (Text("?"),))
    roles = [turn["role"] for turn in encode_messages([shown, question, shown, question])]
    assert roles == ["tool", "user", "user"] * 2


def test_a_tool_that_gives_only_images_says_so_in_words():
    tool_turn, _ = encode_messages([Message("tool", (ToolResult("a", (PNG, PNG)),))])
    assert json.loads(tool_turn["content"]) == {"images": 2, "note": "shown in the next message"}


@pytest.mark.parametrize(
    ("message", "culprit"),
    [
        (Message("system", (PNG,)), r"Message 1 \(system\) holds an image"),
        (Message("assistant", (PNG,)), r"Message 1 \(assistant\) holds an image"),
        (Message("tool", (ToolResult("a", ()), Text("x"))), r"Message 1 \(tool\) holds something that is not"),
        (Message("user", (ToolResult("a", ()),)), r"Message 1 \(user\) holds a tool's result: use role 'tool'"),
        (Message("assistant", (ToolResult("a", ()),)), r"Message 1 \(assistant\) holds a tool's result"),
        (Message("user", (CALL,)), r"Message 1 \(user\) holds a tool call: only assistant messages can"),
        (Message("system", (CALL,)), r"Message 1 \(system\) holds a tool call"),
    ],
)  # fmt: skip
def test_a_part_in_the_wrong_role_is_refused_by_place(message, culprit):
    with pytest.raises(UnsupportedInputError, match=culprit):
        encode_messages([Message("user", (Text("Hi"),)), message])


def test_messages_are_not_touched():
    messages = (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("What is this?"), PNG), name="Ana"),
        Message("assistant", (ToolCall(None, "zoom", ""),)),
        Message("tool", (ToolResult("a", (PNG,)),)),
    )
    before = copy.deepcopy(messages)
    dialect, request = ChatCompletionsDialect(), ChatRequest("m", messages)
    assert dialect.encode(request, stream=True) == dialect.encode(request, stream=True)
    assert messages == before


@pytest.mark.parametrize(("text", "content"), [((), ""), ((Text("Let me see."),), "Let me see.")])
def test_a_turn_of_calls_alone_has_no_null_where_that_is_not_taken(text, content):
    (turn,) = encode_messages([Message("assistant", (*text, CALL))], null_content=False)
    assert turn == {"role": "assistant", "content": content, "tool_calls": [wire_call("call_a")]}

"""Everything a LangChain message can hold arrives, or is refused by name."""

import base64
import copy
from pathlib import Path

import pytest
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain.convert import to_messages

PNG = SAMPLE_IMAGES["circle"].read_bytes()
BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"
HTTP_URL = "https://example.com/circle.png"

EMBEDDED = {
    "v1 base64": {"type": "image", "base64": BASE64, "mime_type": "image/png"},
    "v1 base64, wrongly labelled": {"type": "image", "base64": BASE64, "mime_type": "image/jpeg"},
    "v1 data URL": {"type": "image", "url": DATA_URL},
    "v0 base64": {"type": "image", "source_type": "base64", "data": BASE64, "mime_type": "image/png"},
    "OpenAI": {"type": "image_url", "image_url": {"url": DATA_URL}},
    "OpenAI, a string": {"type": "image_url", "image_url": DATA_URL},
    "Anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
    "v1 non-standard": {"type": "non_standard", "value": {"type": "image_url", "image_url": DATA_URL}},
}
BY_URL = {
    "v1": {"type": "image", "url": HTTP_URL},
    "v0": {"type": "image", "source_type": "url", "url": HTTP_URL},
    "OpenAI": {"type": "image_url", "image_url": {"url": HTTP_URL}},
    "OpenAI, a string": {"type": "image_url", "image_url": HTTP_URL},
    "Anthropic": {"type": "image", "source": {"type": "url", "url": HTTP_URL}},
}
REFUSED = {
    "a file's id": ({"type": "image", "file_id": "f-1"}, "file_id"),
    "v0 id": ({"type": "image", "source_type": "id", "id": "f-1"}, "file_id"),
    "an empty image": ({"type": "image"}, "base64"),
    "an empty image_url": ({"type": "image_url"}, "image_url"),
    "an unknown source": ({"type": "image", "source": {"type": "file", "file_id": "f-1"}}, "source"),
    "a spreadsheet": (
        {"type": "file", "base64": "UEsDBA==", "mime_type": "application/vnd.ms-excel"},
        "'file'",
    ),
    "a file by its id": ({"type": "file", "file_id": "f-1"}, "file_id"),
    "OpenAI's file by its id": ({"type": "file", "file": {"file_id": "f-1"}}, "file_id"),
    "a text by URL": (
        {"type": "file", "url": "https://example.com/a.txt", "mime_type": "text/plain"},
        "text/plain",
    ),
    "sound": ({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}, "'audio'"),
    "a film": ({"type": "video", "url": "https://example.com/a.mp4"}, "'video'"),
}


@pytest.mark.parametrize("block", EMBEDDED.values(), ids=EMBEDDED)
def test_embedded_images_in_every_spelling(block):
    (message,) = to_messages([HumanMessage([block, {"type": "text", "text": "What?"}])])
    assert message == Message("user", (Image(PNG, "image/png"), Text("What?")))


@pytest.mark.parametrize("block", BY_URL.values(), ids=BY_URL)
def test_images_by_url_in_every_spelling(block):
    (message,) = to_messages([HumanMessage([block])])
    assert message.parts == (Image(url=HTTP_URL),)


def test_detail_is_kept():
    (message,) = to_messages(
        [HumanMessage([{"type": "image_url", "image_url": {"url": HTTP_URL, "detail": "low"}}])]
    )
    assert message.parts == (Image(url=HTTP_URL, detail="low"),)


@pytest.mark.parametrize(("block", "culprit"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_shown_is_refused_by_message_and_kind(block, culprit):
    with pytest.raises(UnsupportedInputError, match=culprit) as caught:
        to_messages([SystemMessage("Be kind."), HumanMessage([block])])
    assert "Message 1 (human)" in str(caught.value)


@pytest.mark.parametrize(
    "address", ["file:///etc/hostname", "/etc/hostname", "etc/hostname", "ftp://a/b.png"]
)
@pytest.mark.parametrize("spelling", ["v1", "OpenAI", "Anthropic"])
def test_no_message_makes_us_read_a_file(address, spelling):
    block = {
        "v1": {"type": "image", "url": address},
        "OpenAI": {"type": "image_url", "image_url": {"url": address}},
        "Anthropic": {"type": "image", "source": {"type": "url", "url": address}},
    }[spelling]
    with pytest.raises(ImageError, match="http"):
        to_messages([HumanMessage([block])])


def test_words_in_every_form():
    messages = to_messages(
        [
            SystemMessage("Be kind."),
            HumanMessage(["Hi", {"type": "text", "text": "there"}], name="bob"),
            AIMessage(""),
            ChatMessage("So?", role="user"),
        ]
    )
    assert messages == (
        Message("system", (Text("Be kind."),)),
        Message("user", (Text("Hi"), Text("there")), name="bob"),
        Message("assistant", ()),
        Message("user", (Text("So?"),)),
    )


def test_a_conversation_with_tools():
    calls = [
        {"id": "c1", "name": "look", "args": {"place": "Zürich"}},
        {"id": "c2", "name": "wait", "args": {}},
    ]
    content = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
    ]
    image = EMBEDDED["v1 base64"]
    messages = to_messages(
        [
            AIMessage(content, tool_calls=calls),
            ToolMessage([{"type": "text", "text": "See:"}, image], tool_call_id="c1"),
            ToolMessage("done", tool_call_id="c2", status="error"),
        ]
    )
    assert messages == (
        Message(
            "assistant",
            (
                Text("I look."),
                ToolCall("c1", "look", '{"place": "Zürich"}'),
                ToolCall("c2", "wait", "{}"),
            ),
        ),
        Message("tool", (ToolResult("c1", (Text("See:"), Image(PNG, "image/png"))),)),
        Message("tool", (ToolResult("c2", (Text("done"),)),)),
    )


def test_calls_that_cannot_be_read_are_told_in_words_with_what_was_answered_to_them():
    calls = [{"id": "c1", "name": "wait", "args": {}}]
    broken = [
        {"id": "c2", "name": "look", "args": '{"pla', "error": "cut off"},
        {"id": None, "name": "look", "args": "[1]", "error": None},
    ]
    told = "I called look with arguments that can't be read: "
    assert to_messages(
        [
            AIMessage("Hm.", tool_calls=calls, invalid_tool_calls=broken),
            ToolMessage("done", tool_call_id="c1"),
            ToolMessage("Write JSON.", tool_call_id="c2", status="error"),
            AIMessage("", invalid_tool_calls=broken[:1]),
        ]
    ) == (
        Message(
            "assistant",
            (Text("Hm."), Text(f'\n{told}{{"pla\n{told}[1]'), ToolCall("c1", "wait", "{}")),
        ),
        Message("tool", (ToolResult("c1", (Text("done"),)),)),
        Message("user", (Text("Write JSON."),)),
        Message("assistant", (Text(f'{told}{{"pla'),)),
    )


def test_a_call_without_arguments_is_told_also_where_its_name_was_said():
    cut = {"id": "c1", "name": "look", "args": "", "error": "cut off"}
    (message,) = to_messages([AIMessage("I will look.", invalid_tool_calls=[cut])])
    assert message.text == "I will look.\nI called look with arguments that can't be read: "


@pytest.mark.parametrize(
    "message", [FunctionMessage("1", name="f"), ChatMessage("Hi", role="narrator")], ids=lambda m: m.type
)
def test_messages_without_a_place_are_refused(message):
    with pytest.raises(UnsupportedInputError, match=type(message).__name__):
        to_messages([message])


def test_nothing_given_is_changed():
    given = [HumanMessage([EMBEDDED["OpenAI"], "What?"]), AIMessage("Hm", tool_calls=[])]
    before = copy.deepcopy(given)
    to_messages(given)
    assert given == before


def test_a_image_that_cannot_be_read_is_named_by_its_message():
    text = base64.b64encode(Path(__file__).read_bytes()).decode()
    with pytest.raises(ImageError, match=r"Message 0 \(human\)"):
        to_messages([HumanMessage([{"type": "image", "base64": text, "mime_type": "image/png"}])])

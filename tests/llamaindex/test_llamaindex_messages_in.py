"""Everything a LlamaIndex message can hold arrives, or is refused by name."""

import asyncio
import base64
import copy
import io

import PIL.Image
import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.schema import ImageDocument, ImageNode, MediaResource, Node, TextNode
from pydantic import BaseModel

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.llamaindex.convert import to_messages
from llama_vision.llamaindex.images import to_image
from tests.emulator import ACCOUNT_ID
from tests.llamaindex.cats import model_at

PATH = SAMPLE_IMAGES["circle"]
PNG = PATH.read_bytes()
BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"
HTTP_URL = "https://example.com/circle.png"

EMBEDDED = {
    "ImageBlock of bytes": lambda: ImageBlock(image=PNG),
    "ImageBlock of base64": lambda: ImageBlock(image=BASE64.encode()),
    "ImageBlock of a file": lambda: ImageBlock(image=io.BytesIO(PNG)),
    "ImageBlock of a path": lambda: ImageBlock(path=PATH),
    "ImageBlock of a data URL": lambda: ImageBlock(url=DATA_URL),
    "ImageBlock, wrongly labelled": lambda: ImageBlock(url=DATA_URL.replace("png", "jpeg")),
    "ImageNode of base64": lambda: ImageNode(image=BASE64),
    "ImageNode of a path": lambda: ImageNode(image_path=str(PATH)),
    "ImageNode of a data URL": lambda: ImageNode(image_url=DATA_URL),
    "ImageDocument of base64": lambda: ImageDocument(image=BASE64),
    "ImageDocument of a path": lambda: ImageDocument(image_path=str(PATH)),
    "Node": lambda: Node(image_resource=MediaResource(path=PATH)),
    "MediaResource": lambda: MediaResource(data=PNG),
    "path": lambda: PATH,
    "path as text": lambda: str(PATH),
    "bytes": lambda: PNG,
    "data URL": lambda: DATA_URL,
}


def chat(model, way, messages, **call):
    """Ask in one way, and give the response, of a stream its last."""

    async def astream():
        return [response async for response in await model.astream_chat(messages, **call)][-1]

    match way:
        case "chat":
            return model.chat(messages, **call)
        case "achat":
            return asyncio.run(model.achat(messages, **call))
        case "stream_chat":
            return list(model.stream_chat(messages, **call))[-1]
        case _:
            return asyncio.run(astream())


@pytest.mark.parametrize("make", EMBEDDED.values(), ids=EMBEDDED)
def test_images_in_every_form(make):
    assert to_image(make()) == Image(PNG, "image/png")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageBlock(url=HTTP_URL),
        lambda: ImageNode(image_url=HTTP_URL),
        lambda: MediaResource(url=HTTP_URL),
        lambda: HTTP_URL,
    ],
    ids=["ImageBlock", "ImageNode", "MediaResource", "text"],
)
def test_images_by_url_are_passed_on(make):
    assert to_image(make()) == Image(url=HTTP_URL)


def test_a_pil_image():
    pil_image = PIL.Image.open(PATH)
    image = to_image(pil_image)
    decoded = PIL.Image.open(io.BytesIO(image.data))
    assert decoded.convert("RGB").tobytes() == pil_image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    "make",
    [ImageBlock, ImageNode, ImageDocument, MediaResource, lambda: Node(text_resource=None)],
    ids=["ImageBlock", "ImageNode", "ImageDocument", "MediaResource", "Node"],
)
def test_a_holder_without_a_image_is_refused(make):
    with pytest.raises(ImageError):
        to_image(make())


def test_a_text_node_is_no_image():
    with pytest.raises(ImageError, match="TextNode"):
        to_image(TextNode(text="hi"))


def test_a_conversation():
    history = [
        ChatMessage(role="system", content="Be kind."),
        ChatMessage(role="developer", content="And brief."),
        ChatMessage(
            blocks=[TextBlock(text="What?"), ImageBlock(path=PATH, detail="low")],
            additional_kwargs={"name": "bob"},
        ),
        ChatMessage(
            role="assistant",
            blocks=[
                ThinkingBlock(content="hm"),
                TextBlock(text="I look."),
                ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"place": "Zürich"}),
            ],
            additional_kwargs={"tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": "{}"}}]},
        ),
        ChatMessage(
            role="tool",
            blocks=[TextBlock(text="See:"), ImageBlock(path=PATH)],
            additional_kwargs={"tool_call_id": "c1"},
        ),
        ChatMessage(role="model", content=""),
    ]
    before = copy.deepcopy(history)
    assert to_messages(history) == (
        Message("system", (Text("Be kind."),)),
        Message("system", (Text("And brief."),)),
        Message("user", (Text("What?"), Image(PNG, "image/png", detail="low")), name="bob"),
        Message("assistant", (Text("I look."), ToolCall("c1", "look", '{"place": "Zürich"}'))),
        Message("tool", (ToolResult("c1", (Text("See:"), Image(PNG, "image/png"))),)),
        Message("assistant", ()),
    )
    assert history == before


def test_calls_that_cannot_be_read_are_told_in_words_with_what_was_answered_to_them():
    def said(text, **arguments):
        calls = [
            ToolCallBlock(tool_call_id=name, tool_name=name, tool_kwargs=each)
            for name, each in arguments.items()
        ]
        return ChatMessage(role="assistant", blocks=[TextBlock(text=text), *calls])

    def told(call_id, text):
        return ChatMessage(role="tool", content=text, additional_kwargs={"tool_call_id": call_id})

    told_of, unread = "I called", "with arguments that can't be read"
    in_words = '{"name": "look", "parameters": {"pla'
    assert to_messages(
        [
            said("Hm.", look='{"pla', wait="{}", sleep="[1]"),
            told("wait", "done"),
            told("look", "Write JSON."),
            said(in_words, look='{"pla'),
            said("", look={"place": "here"}),
            told("look", "seen"),
        ]
    ) == (
        Message(
            "assistant",
            (
                Text("Hm."),
                Text(f'\n{told_of} look {unread}: {{"pla\n{told_of} sleep {unread}: [1]'),
                ToolCall("wait", "wait", "{}"),
            ),
        ),
        Message("tool", (ToolResult("wait", (Text("done"),)),)),
        Message("user", (Text("Write JSON."),)),
        Message("assistant", (Text(in_words),)),
        Message("assistant", (ToolCall("look", "look", '{"place": "here"}'),)),
        Message("tool", (ToolResult("look", (Text("seen"),)),)),
    )


def test_calls_that_stand_only_in_additional_kwargs():
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    (message,) = to_messages(
        [ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]})]
    )
    assert message.parts == (ToolCall("c1", "look", '{"a": 1}'),)


class ClientCall(BaseModel):
    """A call as OpenAI's client has it."""

    id: str = "fc_1"
    call_id: str = "c1"
    name: str = "look"
    arguments: str = '{"a": 1}'
    type: str = "function_call"


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c1", "type": "tool_use", "name": "look", "input": {"a": 1}},
        {"id": "c1", "function": {"name": "look", "arguments": {"a": 1}}},
        ClientCall(),
    ],
    ids=["Anthropic", "Ollama", "OpenAI's Responses"],
)
def test_calls_of_other_companies_models_that_stand_only_in_additional_kwargs(call):
    (message,) = to_messages(
        [ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]})]
    )
    assert message.parts == (ToolCall("c1", "look", '{"a": 1}'),)


NOTES = [
    ThinkingBlock(content="hm"),
    CitationBlock(cited_content=TextBlock(text="sun"), source="a.b", title="A", additional_location_info={}),
    CitableBlock(title="A", source="a.b", content=[TextBlock(text="sun")]),
    DocumentBlock(data=b"PK\3\4 a file", document_mimetype="application/zip"),
    AudioBlock(audio=b"RIFF0000WAVE", format="wav"),
    VideoBlock(video=b"\x00\x00\x00 ftypisom", video_mimetype="video/mp4"),
]


@pytest.mark.parametrize("note", NOTES, ids=lambda note: type(note).__name__)
def test_what_another_model_noted_is_left_out_of_its_turns_and_refused_in_those_of_users(note):
    blocks = [TextBlock(text="Hi"), CachePoint(cache_control={"type": "ephemeral"}), note]
    assert to_messages([ChatMessage(role="assistant", blocks=blocks)]) == (
        Message("assistant", (Text("Hi"),)),
    )
    with pytest.raises(UnsupportedInputError, match=rf"Message 0 \(user\).*{type(note).__name__}"):
        to_messages([ChatMessage(role="user", blocks=blocks)])


@pytest.mark.parametrize("note", NOTES[:3], ids=lambda note: type(note).__name__)
def test_data_of_a_tool_is_json_text(note):
    message = ChatMessage(role="tool", blocks=[note], additional_kwargs={"tool_call_id": "c1"})
    (told,) = to_messages([message])
    (result,) = told.parts
    assert type(note).model_validate_json(result.text) == note


@pytest.mark.parametrize(
    "note",
    [*NOTES[3:], CitableBlock(title="A", source="a.b", content=[NOTES[3]])],
    ids=lambda note: type(note).__name__,
)
def test_a_file_that_a_tool_returns_is_refused_and_not_sent_as_text(note):
    with pytest.raises(UnsupportedInputError, match=type(note).__name__):
        to_messages([ChatMessage(role="tool", blocks=[note], additional_kwargs={"tool_call_id": "c1"})])


@pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
def test_a_thread_that_another_companys_model_began_goes_on(emulator, way):
    thread = [
        ChatMessage(role="user", content="The weather?"),
        ChatMessage(role="assistant", blocks=[*NOTES, TextBlock(text="It is sunny.")]),
        ChatMessage(role="user", content="And tomorrow?"),
    ]
    assert chat(model_at(emulator), way, thread).message.content
    assert [turn["content"] for turn in emulator.requests[0].body["messages"]] == [
        "The weather?",
        "It is sunny.",
        "And tomorrow?",
    ]


@pytest.mark.parametrize(
    ("message", "culprit"),
    [
        (
            ChatMessage(blocks=[DocumentBlock(data=b"PK\3\4 a file", document_mimetype="application/zip")]),
            "DocumentBlock",
        ),
        (ChatMessage(blocks=[AudioBlock(audio=b"RIFF0000WAVE", format="wav")]), "AudioBlock"),
        (ChatMessage(role="tool", content="42"), "tool_call_id"),
        (ChatMessage(role="assistant", additional_kwargs={"tool_calls": ["look"]}), "tool_calls"),
    ],
    ids=["archive", "sound", "tool result without id", "strange calls"],
)
def test_what_cannot_be_shown_is_refused_by_message_and_kind(message, culprit):
    with pytest.raises(UnsupportedInputError, match=culprit) as caught:
        to_messages([ChatMessage(content="Hi"), message])
    assert "Message 1" in str(caught.value)


def test_no_message_makes_us_read_a_file():
    with pytest.raises(ImageError, match="http"):
        to_messages([ChatMessage(blocks=[ImageBlock(url=f"file://{PATH}")])])


@pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
def test_another_companys_built_in_tool_is_refused_by_name(emulator, way):
    with pytest.raises(UnsupportedInputError, match="The tool 'web_search'"):
        chat(model_at(emulator), way, [ChatMessage(content="Hi")], tools=[{"type": "web_search"}])
    assert emulator.requests == []


@pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
def test_a_turn_of_calls_alone_is_taken_by_a_host_that_refuses_null(emulator_of, way):
    emulator = emulator_of("cloudflare-openai")
    call = ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={})
    thread = [
        ChatMessage(content="Look."),
        ChatMessage(role="assistant", blocks=[call]),
        ChatMessage(role="tool", content="Sun.", additional_kwargs={"tool_call_id": "c1"}),
    ]
    model = model_at(emulator, "cloudflare-openai", account_id=ACCOUNT_ID)
    assert chat(model, way, thread).message.content
    assert emulator.requests[0].body["messages"][1]["content"] == ""

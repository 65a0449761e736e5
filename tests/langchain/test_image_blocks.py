"""Images in the blocks of other companies' APIs are shown, in turns of users and in tools' results."""

import base64

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Text, ToolResult
from llama_vision.langchain.convert import to_messages
from tests.images.test_sources import PNG

BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"
HTTP_URL = "https://example.com/a.png"
EMBEDDED = {
    "OpenAI's responses": {"type": "input_image", "image_url": DATA_URL},
    "OpenAI's responses, nested": {"type": "input_image", "image_url": {"url": DATA_URL}},
    "Bedrock": {"image": {"format": "png", "source": {"bytes": PNG}}},
    "Bedrock with a type": {"type": "image", "image": {"format": "png", "source": {"bytes": PNG}}},
    "Bedrock as JSON": {"image": {"format": "png", "source": {"bytes": BASE64}}},
    "Bedrock in LangChain": {"type": "image", "source": {"bytes": PNG}},
    "Google": {"inline_data": {"mime_type": "image/png", "data": BASE64}},
    "Google as JSON": {"inlineData": {"mimeType": "image/png", "data": BASE64}},
    "Google's bytes": {"inline_data": {"mime_type": "image/png", "data": PNG}},
    "MCP": {"type": "image", "data": BASE64, "mimeType": "image/png"},
    "Vercel": {"type": "image", "image": DATA_URL},
    "Vercel's base64": {"type": "image", "image": BASE64},
    "bytes": {"type": "image", "image": PNG},
    "a data URL for base64": {"type": "image", "base64": DATA_URL},
    "bytes for base64": {"type": "image", "base64": PNG, "mime_type": "image/png"},
    "image with image_url": {"type": "image", "image_url": DATA_URL},
    "v1 non-standard": {"type": "non_standard", "value": {"type": "input_image", "image_url": DATA_URL}},
}
every_spelling = pytest.mark.parametrize("block", EMBEDDED.values(), ids=EMBEDDED)


@every_spelling
def test_in_a_users_turn(block):
    (message,) = to_messages(
        [HumanMessage([block, {"type": "input_text", "text": "What?"}, {"text": "Say."}])]
    )
    assert message.parts == (Image(PNG, "image/png"), Text("What?"), Text("Say."))


@every_spelling
def test_in_a_tools_result(block):
    call = {"id": "c1", "name": "look", "args": {}}
    turns = [HumanMessage("Look."), AIMessage("", tool_calls=[call]), ToolMessage([block], tool_call_id="c1")]
    assert to_messages(turns)[2].parts == (ToolResult("c1", (Image(PNG, "image/png"),)),)


@pytest.mark.parametrize("block", [{"type": "input_image", "image_url": HTTP_URL, "detail": "low"},
                                   {"type": "image", "image": HTTP_URL}, {"type": "image", "image_url": {"url": HTTP_URL}}])  # fmt: skip
def test_by_url(block):
    (message,) = to_messages([HumanMessage([block])])
    assert message.parts == (Image(url=HTTP_URL, detail=block.get("detail")),)


@pytest.mark.parametrize(
    ("block", "culprit"),
    [
        ({"type": "input_image", "file_id": "f-1"}, "input_image"),
        ({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://a/b"}}}}, "bytes"),
        ({"type": "image", "image": {"format": "png"}}, "base64"),
        ({"inline_data": {"mime_type": "audio/wav", "data": "AAAA"}}, "type None"),
    ],
)
def test_what_holds_no_image_is_refused(block, culprit):
    with pytest.raises(UnsupportedInputError, match=culprit):
        to_messages([HumanMessage([block])])


def test_a_path_in_a_message_is_never_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    for block in ({"type": "image", "image": str(path)}, {"type": "input_image", "image_url": path.as_uri()}):
        with pytest.raises(Exception, match="Message 0") as caught:
            to_messages([HumanMessage([block])])
        assert type(caught.value).__name__ == "ImageError"


def test_rows_of_a_tool_stay_data():
    call = {"id": "c1", "name": "look", "args": {}}
    rows = [{"text": "a"}, {"image": "a.png"}, {"image": {"url": "a.png"}}]
    turns = [HumanMessage("Look."), AIMessage("", tool_calls=[call]), ToolMessage(rows, tool_call_id="c1")]
    (result,) = to_messages(turns)[2].parts
    assert result.text == '{"text": "a"}\n{"image": "a.png"}\n{"image": {"url": "a.png"}}'

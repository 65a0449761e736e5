"""PDFs in every block that LangChain's users write."""

import asyncio
import base64

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.messages.content import create_file_block

from llama_vision.core.errors import DocumentError
from llama_vision.core.messages import Document, Image
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.langchain.convert import to_messages
from llama_vision.testing import ScriptedServer
from tests.pdfs import text_pdf

PDF = text_pdf("one", "two", "three")
B64 = base64.b64encode(PDF).decode()
DATA_URL = f"data:application/pdf;base64,{B64}"
URL = "https://example.com/report.pdf"
QUESTION = {"type": "text", "text": "What does it say?"}

EMBEDDED = {
    "v1": create_file_block(base64=B64, mime_type="application/pdf", filename="report.pdf"),
    "v1, a data URL": {"type": "file", "url": DATA_URL, "filename": "report.pdf"},
    "v0": {
        "type": "file",
        "source_type": "base64",
        "mime_type": "application/pdf",
        "data": B64,
        "name": "report.pdf",
    },
    "OpenAI": {"type": "file", "file": {"file_data": DATA_URL, "filename": "report.pdf"}},
    "OpenAI, responses": {"type": "input_file", "file_data": DATA_URL, "filename": "report.pdf"},
    "Anthropic": {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": B64},
        "title": "report.pdf",
    },
    "Google": {"type": "media", "mime_type": "application/pdf", "data": B64, "name": "report.pdf"},
    "Bedrock": {"document": {"format": "pdf", "name": "report.pdf", "source": {"bytes": PDF}}},
    "no standard": {"type": "non_standard", "value": {"type": "file", "base64": B64, "title": "report.pdf"}},
}
BY_URL = {
    "v1": create_file_block(url=URL, mime_type="application/pdf"),
    "v0": {"type": "file", "source_type": "url", "url": URL},
    "OpenAI, responses": {"type": "input_file", "file_url": URL},
    "Anthropic": {"type": "document", "source": {"type": "url", "url": URL}},
}


@pytest.mark.parametrize("block", EMBEDDED.values(), ids=EMBEDDED)
def test_a_pdf_in_every_spelling(block):
    (message,) = to_messages([HumanMessage([block, QUESTION])])
    assert message.parts[0] == Document(data=PDF, name="report.pdf")


@pytest.mark.parametrize("block", BY_URL.values(), ids=BY_URL)
def test_a_pdf_by_its_url(block):
    assert to_messages([HumanMessage([block])])[0].parts == (Document(url=URL),)


@pytest.mark.parametrize("chosen", [{"pages": "2-3"}, {"pages": 2, "password": 7}])
@pytest.mark.parametrize("place", ["block", "extras"])
def test_pages_and_password_stand_in_the_block_or_in_its_extras(chosen, place):
    block = {"type": "file", "base64": B64}
    block |= chosen if place == "block" else {"extras": chosen}
    (document,) = to_messages([HumanMessage([block])])[0].parts
    assert document.pages == str(chosen["pages"])
    assert document.password == ("7" if "password" in chosen else None)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "file", "mime_type": "image/png", "url": "https://example.com/a.png"},
        {"type": "file", "base64": base64.b64encode(SAMPLE_IMAGES["circle"].read_bytes()).decode()},
    ],
)
def test_a_file_that_is_an_image_is_one(block):
    (image,) = to_messages([HumanMessage([block])])[0].parts
    assert isinstance(image, Image)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
def test_the_model_sees_the_pages_and_can_cite_them(way):
    messages = [HumanMessage([EMBEDDED["v1"] | {"pages": "2-3"}, QUESTION])]
    with ScriptedServer("Two and three.") as server:
        model = ChatLlamaVision(**server.model_options)
        match way:
            case "invoke":
                model.invoke(messages)
            case "ainvoke":
                asyncio.run(model.ainvoke(messages))
            case "stream":
                list(model.stream(messages))
            case _:
                asyncio.run(_drain(model.astream(messages)))
        (request,) = server.requests
    assert len(request.images) == 2
    assert "report.pdf, page 2 of 3:\ntwo\n\nreport.pdf, page 3 of 3:\nthree" in request.text


async def _drain(stream):
    async for _ in stream:
        pass


def test_a_tool_may_return_a_pdf():
    call = {"id": "c1", "name": "fetch", "args": {}}
    thread = [
        HumanMessage("Read it."),
        AIMessage("", tool_calls=[call]),
        ToolMessage([EMBEDDED["Anthropic"]], tool_call_id="c1"),
    ]
    with ScriptedServer("Done.") as server:
        ChatLlamaVision(**server.model_options).invoke(thread)
        assert len(server.requests[0].images) == 3


def test_the_limit_and_the_text_layer_are_arguments():
    messages = [HumanMessage([EMBEDDED["v1"], QUESTION])]
    with ScriptedServer("Ok.") as server:
        options = server.model_options
        with pytest.raises(DocumentError, match="limit of 2"):
            ChatLlamaVision(**options, document_max_pages=2).invoke(messages)
        ChatLlamaVision(**options, document_text=False).invoke(messages)
        assert "two" not in server.requests[0].text


def test_tokens_are_counted_by_pages():
    assert (
        ChatLlamaVision(provider="local").get_num_tokens_from_messages([HumanMessage([EMBEDDED["v1"]])])
        > 3 * 6404
    )

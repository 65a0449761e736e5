"""PDFs in LlamaIndex: as `DocumentBlock`s, among `image_documents`, and read page by page."""

import io

import pytest
from llama_index.core import SimpleDirectoryReader
from llama_index.core.llms import ChatMessage, DocumentBlock, ImageBlock, TextBlock
from llama_index.core.schema import ImageDocument

from llama_vision import pages
from llama_vision.core.errors import DocumentError, ImageError, UnsupportedInputError
from llama_vision.core.messages import Document, Image
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.llamaindex import LlamaVision, PageReader
from llama_vision.llamaindex.convert import to_messages
from llama_vision.testing import ScriptedServer
from tests.images.damaged import tiff_of
from tests.images.images import sketch
from tests.pdfs import text_pdf

PDF = text_pdf("one", "two", "three")


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(PDF)
    return path


def part_of(block):
    (message,) = to_messages([ChatMessage(blocks=[block, TextBlock(text="?")])])
    return message.parts[0]


def test_a_document_block_in_every_form(report):
    assert part_of(DocumentBlock(data=PDF)) == Document(data=PDF)
    assert part_of(DocumentBlock(data=PDF, title="a.pdf")) == Document(data=PDF, name="a.pdf")
    assert part_of(DocumentBlock(data=io.BytesIO(PDF))) == Document(data=PDF)
    assert part_of(DocumentBlock(path=report)) == Document(data=PDF, name=str(report))
    assert part_of(DocumentBlock(url="https://example.com/a.pdf")) == Document(
        url="https://example.com/a.pdf"
    )
    assert isinstance(part_of(DocumentBlock(path=SAMPLE_IMAGES["circle"])), Image)


def test_a_document_block_that_holds_no_document_is_refused(tmp_path):
    with pytest.raises(UnsupportedInputError, match=r"DocumentBlock of application/zip"):
        part_of(DocumentBlock(data=b"PK\3\4 a file", document_mimetype="application/zip"))
    with pytest.raises(ImageError, match="empty"):
        part_of(DocumentBlock())
    with pytest.raises(ImageError, match="can't be read: No such file"):
        part_of(DocumentBlock(path=str(tmp_path / "nope.pdf")))


def test_an_error_about_a_blocks_path_quotes_nothing_of_the_file(tmp_path):
    path = tmp_path / "passwd"
    path.write_bytes(b"secret:0:0")
    with pytest.raises(UnsupportedInputError) as caught:
        part_of(DocumentBlock(path=path))
    assert "secret" not in str(caught.value)


def test_a_tool_may_return_a_document():
    thread = ChatMessage(
        role="tool", blocks=[DocumentBlock(data=PDF)], additional_kwargs={"tool_call_id": "c"}
    )
    (message,) = to_messages([thread])
    assert message.parts[0].parts == (Document(data=PDF),)


def test_a_chat_shows_the_pages_of_a_block(report):
    with ScriptedServer("Three pages.") as server:
        llm = LlamaVision(**server.model_options)
        llm.chat([ChatMessage(blocks=[DocumentBlock(path=report), TextBlock(text="What?")])])
        (request,) = server.requests
    assert len(request.images) == 3
    assert "report.pdf, page 3 of 3:\nthree" in request.text


def test_image_documents_may_be_documents_and_pages(report):
    sources = [
        report,
        str(report),
        PDF,
        DocumentBlock(path=report),
        io.BytesIO(PDF),
        tiff_of(sketch(), sketch()),
    ]
    counts = []
    for source in [*sources, *pages(report, "2")]:
        with ScriptedServer("Ok.") as server:
            LlamaVision(**server.model_options).complete("What?", image_documents=[source])
            counts.append(len(server.requests[0].images))
    assert counts == [3, 3, 3, 3, 3, 2, 1]


def test_the_reader_makes_an_image_document_of_each_page(report):
    found = PageReader(pages="2-").load_data(report, extra_info={"year": 1999})
    assert all(isinstance(one, ImageDocument) for one in found)
    assert [one.text for one in found] == ["two", "three"]
    assert found[0].metadata == {
        "year": 1999,
        "file_path": str(report),
        "file_name": "report.pdf",
        "page_label": "2",
        "page_count": 3,
    }
    assert [one.node_id for one in found] == [one.node_id for one in PageReader(pages="2-").load_data(report)]
    with ScriptedServer("Ok.") as server:
        LlamaVision(**server.model_options).complete("What?", image_documents=found)
        assert len(server.requests[0].images) == 2
    with pytest.raises(DocumentError, match="limit of 2"):
        PageReader(max_pages=2).load_data(report)


def test_the_reader_reads_folders(report):
    reader = SimpleDirectoryReader(report.parent, file_extractor={".pdf": PageReader()})
    found = reader.load_data()
    assert [one.metadata["page_label"] for one in found] == ["1", "2", "3"]
    assert {one.metadata["file_type"] for one in found} == {"application/pdf"}


def test_an_image_is_still_an_image():
    with ScriptedServer("A circle.") as server:
        llm = LlamaVision(**server.model_options)
        llm.complete("What?", image_documents=[ImageBlock(path=SAMPLE_IMAGES["circle"])])
        assert server.requests[0].images == [SAMPLE_IMAGES["circle"].read_bytes()]

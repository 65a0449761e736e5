"""`image_block` and `human`: a local file, bytes, a PIL image or a figure without base64 by hand."""

import base64
import io
from pathlib import Path

import matplotlib.figure
import numpy as np
import PIL.Image
import pytest
from langchain_core.messages import HumanMessage

from llama_vision import Document, pages
from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision, human, image_block
from llama_vision.testing import ScriptedServer
from tests.pdfs import text_pdf

PNG = SAMPLE_IMAGES["circle"].read_bytes()
PDF = text_pdf("one", "two", "three")


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "report.pdf"
    place.write_bytes(PDF)
    return place


@pytest.mark.parametrize(
    "source",
    [
        SAMPLE_IMAGES["circle"],
        str(SAMPLE_IMAGES["circle"]),
        PNG,
        io.BytesIO(PNG),
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
    ],
    ids=["path", "text", "bytes", "file", "data URL"],
)
def test_a_file_is_a_block_with_its_bytes(source):
    assert image_block(source) == {
        "type": "image",
        "base64": base64.b64encode(PNG).decode(),
        "mime_type": "image/png",
    }


def test_pixels_and_figures_are_blocks():
    figure = matplotlib.figure.Figure(figsize=(2, 1), dpi=50)
    for source, size in [
        (PIL.Image.open(io.BytesIO(PNG)), (224, 224)),
        (np.zeros((30, 40, 3), np.uint8), (40, 30)),
        (figure, (100, 50)),
    ]:
        block = image_block(source)
        assert PIL.Image.open(io.BytesIO(base64.b64decode(block["base64"]))).size == size


def test_a_url_stays_one():
    assert image_block("https://example.com/cat.png") == {
        "type": "image",
        "url": "https://example.com/cat.png",
    }
    assert image_block("https://example.com/a.pdf", pages="2") == {
        "type": "file",
        "url": "https://example.com/a.pdf",
        "mime_type": "application/pdf",
        "filename": "a.pdf",
        "pages": "2",
    }


def test_a_document_is_a_file_block_with_its_name_and_pages(path):
    block = image_block(path, pages="2-3")
    assert (block["type"], block["filename"], block["pages"]) == ("file", "report.pdf", "2-3")
    assert base64.b64decode(block["base64"]) == PDF
    assert image_block(Document(data=PDF, pages="1"))["pages"] == "1"
    assert image_block(pages(path, 2)[0])["type"] == "image"


def test_equal_images_make_equal_messages_so_that_replies_are_cached():
    assert human("What?", PNG) == human("What?", PNG)


def test_a_question_about_images_and_pages_arrives(path):
    with ScriptedServer("Two.") as server:
        message = human(
            "What is it?", "https://example.com/cat.png", SAMPLE_IMAGES["circle"], path, pages="2"
        )
        assert isinstance(message, HumanMessage)
        ChatLlamaVision(**server.model_options).invoke([message])
        (request,) = server.requests
    assert PNG in request.images
    assert request.text.endswith("What is it?")
    assert "report.pdf, page 2 of 3" in request.text
    assert "page 3" not in request.text


def test_the_local_model_reads_it():
    model = ChatLlamaVision(provider="local")
    assert model.invoke([human("What color is the circle?", SAMPLE_IMAGES["circle"])]).text == "blue"


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(ImageError, match="not an image"):
        image_block(object())
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        human("What?", tmp_path / "nowhere.png")
    for ask in (
        lambda: image_block(PNG, pages="1"),
        lambda: human("What?", Path(SAMPLE_IMAGES["circle"]), password="x"),
    ):
        with pytest.raises(UnsupportedInputError, match="`pages` and `password`"):
            ask()

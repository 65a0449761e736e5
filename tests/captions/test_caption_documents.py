"""`caption_images` reads documents, URLs, memory and what LlamaIndex's loaders give; metadata are kept, nothing is asked twice."""

import base64
import io
import json
from pathlib import Path

import PIL.Image
import pytest
from llama_index.core import SimpleDirectoryReader
from llama_index.core.llms import DocumentBlock, ImageBlock
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
)

from llama_vision import pages
from llama_vision.core.errors import DocumentError, ImageError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.llamaindex import PageReader
from tests.captions.captioning import caption, draw, model_at, naming
from tests.pdfs import text_pdf

PNG = SAMPLE_IMAGES["circle"].read_bytes()


@pytest.fixture
def report(folder):
    path = folder / "report.pdf"
    path.write_bytes(text_pdf("Sales in March", "Rain in May"))
    return path


def test_each_page_of_a_document_in_a_folder_is_a_node(emulator, folder, report):
    emulator.always(naming)
    (image,) = draw(folder, 1)
    (folder / "notes.md").write_text("words")
    found = caption(folder, model_at(emulator))
    assert found.skipped == [folder / "notes.md"]
    assert found.failures == []
    assert [node.metadata["file_name"] for node in found.nodes] == [image.name, report.name, report.name]
    first = found.nodes[1]
    caption_of_it = first.metadata["caption"]
    assert first.text == f"{caption_of_it}\n\nSales in March"
    assert first.metadata["file_path"] == str(report)
    assert (first.metadata["page_label"], first.metadata["page_count"]) == ("1", 2)
    assert first.get_content(MetadataMode.EMBED) == first.text
    words, shown = first.get_content_blocks(MetadataMode.LLM)
    assert words.text == f"file_name: report.pdf\npage_label: 1\ncaption: {caption_of_it}"
    assert shown.resolve_image().read() in emulator.requests[1].images + emulator.requests[2].images
    assert first.image_url == f"{report.as_uri()}#page=1"


def test_a_node_has_a_thumbnail_for_people_that_no_model_is_shown(emulator, folder, report):
    draw(folder, 1)
    for node in caption(folder, model_at(emulator)).nodes:
        head, data = node.metadata["thumbnail"].split(",")
        small = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        assert small.width <= 240
        assert len(node.metadata["thumbnail"]) <= 16_100
        assert "thumbnail" not in node.get_content(MetadataMode.EMBED)
        assert "thumbnail" not in node.get_metadata_str(MetadataMode.LLM)


def test_equal_pages_are_asked_about_once_and_of_a_changed_file_only_the_changed_ones(
    emulator, folder, report, tmp_path
):
    emulator.always(naming)
    llm, kept = model_at(emulator), tmp_path / "captions.jsonl"
    (folder / "copy.pdf").write_bytes(report.read_bytes())
    found = caption(folder, llm, resume=kept)
    assert (len(found.nodes), found.num_asked) == (4, 2)
    assert len({node.node_id for node in found.nodes}) == 4
    report.write_bytes(text_pdf("Sales in March", "Snow in June"))
    again = caption(folder, llm, resume=kept)
    assert (len(again.nodes), again.num_asked) == (4, 1)


def test_pages_of_a_damaged_or_encrypted_document_are_a_failure_by_name(emulator, folder):
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.7 and nothing")
    (folder / "secret.pdf").write_bytes(text_pdf("Sales", password="x"))
    found = caption(folder, model_at(emulator))
    assert [failure.path.name for failure in found.failures] == ["damaged.pdf", "secret.pdf"]
    assert "password" in str(found.failures[1])
    opened = caption(folder / "secret.pdf", model_at(emulator), password="x")
    assert [node.metadata["page_label"] for node in opened.nodes] == ["1"]


IN_MEMORY = {
    "bytes": lambda _: PNG,
    "bytearray": lambda _: bytearray(PNG),
    "open file": lambda _: io.BytesIO(PNG),
    "PIL image": lambda _: PIL.Image.open(io.BytesIO(PNG)),
    "data URL": lambda _: "data:image/png;base64," + base64.b64encode(PNG).decode(),
    "ImageBlock": lambda _: ImageBlock(image=PNG),
    "MediaResource": lambda _: MediaResource(data=base64.b64encode(PNG)),
    "ImageDocument": lambda _: ImageDocument(image=base64.b64encode(PNG).decode()),
    "ImageNode": lambda _: ImageNode(image=base64.b64encode(PNG).decode()),
    "page": lambda report: pages(report, 1)[0],
    "ImageBlock of a path": lambda _: ImageBlock(path=SAMPLE_IMAGES["circle"]),
}


@pytest.mark.parametrize("kind", IN_MEMORY)
@pytest.mark.parametrize("several", [False, True])
def test_what_is_an_image_elsewhere_is_one_here(emulator, report, kind, several):
    given = IN_MEMORY[kind](report)
    found = caption([given] if several else given, model_at(emulator))
    assert found.failures == []
    (node,) = found.nodes
    (request,) = emulator.requests
    assert node.resolve_image().read() == request.images[0]


def test_bytes_of_a_pdf_are_pages(emulator, report):
    data = report.read_bytes()
    for given in (data, io.BytesIO(data), DocumentBlock(data=base64.b64encode(data), title="report.pdf")):
        found = caption(given, model_at(emulator))
        assert [node.metadata["page_label"] for node in found.nodes] == ["1", "2"]
        assert found.nodes[1].text.endswith("Rain in May")


def test_a_url_is_a_url_and_no_path(emulator):
    found = caption("https://example.com/cat.png", model_at(emulator))
    assert emulator.requests[0].body["messages"][0]["content"][0]["image_url"]["url"] == (
        "https://example.com/cat.png"
    )
    assert found.nodes[0].image_url == "https://example.com/cat.png"


def test_what_is_no_image_is_a_failure_beside_the_others(emulator, folder):
    (path,) = draw(folder, 1)
    found = caption([object(), path, Document(text="words"), b"no image"], model_at(emulator))
    assert [node.image_path for node in found.nodes] == [str(path)]
    assert [type(failure.error) for failure in found.failures] == [ImageError] * 3
    assert "image 1" in str(found.failures[0])
    assert "holds no image" in str(found.failures[1])


def test_metadata_of_a_loader_are_kept_and_its_document_is_the_source(emulator, folder):
    (path,) = draw(folder, 1)
    given = ImageDocument(
        image_path=str(path),
        metadata={"author": "Ada", "size": 5},
        excluded_embed_metadata_keys=["size"],
        excluded_llm_metadata_keys=["author"],
    )
    (node,) = caption([given], model_at(emulator)).nodes
    assert node.image_path == str(path)
    assert (node.metadata["author"], node.metadata["file_name"]) == ("Ada", path.name)
    assert node.ref_doc_id == given.node_id
    assert node.get_content(MetadataMode.EMBED) == f"author: Ada\n\n{node.text}"
    assert "size: 5" in node.get_metadata_str(MetadataMode.LLM)
    assert "Ada" not in node.get_metadata_str(MetadataMode.LLM)


def test_metadata_can_be_given_by_file(emulator, folder, report):
    draw(folder, 1)
    found = caption(folder, model_at(emulator), metadata=lambda path: {"kind": Path(path).suffix})
    assert [node.metadata["kind"] for node in found.nodes] == [".png", ".pdf", ".pdf"]


def test_images_that_a_directory_reader_loads_as_text_are_read_from_their_files(emulator, folder):
    # Without llama-index-readers-file a PNG becomes a Document of text.
    (path,) = draw(folder, 1)
    (folder / "notes.txt").write_text("words")
    loaded = SimpleDirectoryReader(folder).load_data()
    assert {type(document) for document in loaded} <= {Document, ImageDocument}
    found = caption(loaded, model_at(emulator))
    assert found.failures == []
    assert found.skipped == [folder / "notes.txt"]
    assert [node.metadata["file_type"] for node in found.nodes] == ["image/png"]
    assert emulator.requests[0].images == [path.read_bytes()]


def test_texts_of_pages_mean_the_pages(emulator, report):
    texts = [Document(text="?", metadata={"file_path": str(report), "page_label": label}) for label in "iv"]
    found = caption(texts, model_at(emulator))
    assert [node.text.splitlines()[-1] for node in found.nodes] == ["Sales in March", "Rain in May"]
    assert [node.ref_doc_id for node in found.nodes] == [document.node_id for document in texts]
    (failure,) = caption(texts[:1], model_at(emulator)).failures
    assert isinstance(failure.error, DocumentError)
    assert "PageReader" in str(failure)


def test_pages_of_the_page_reader_keep_text_number_and_file(emulator, report):
    loaded = PageReader(pages="2").load_data(report)
    (node,) = caption(loaded, model_at(emulator)).nodes
    assert node.text.endswith("\n\nRain in May")
    assert {name: node.metadata[name] for name in ("file_path", "page_label", "page_count")} == {
        "file_path": str(report),
        "page_label": "2",
        "page_count": 2,
    }
    assert node.ref_doc_id == loaded[0].node_id


def test_a_node_of_an_image_resource_is_captioned(emulator, folder):
    (path,) = draw(folder, 1)
    (node,) = caption([Node(image_resource=MediaResource(path=path))], model_at(emulator)).nodes
    assert node.image_path == str(path)


def test_captions_are_displayed_small(emulator, folder, report):
    draw(folder, 2)
    found = caption(folder, model_at(emulator))
    assert len(repr(found)) < 200
    html = found._repr_html_()
    assert html.count("<img") == 4
    assert "report.pdf, p. 2" in html


def test_the_log_of_the_command_line_is_shared(emulator, folder, report, tmp_path):
    kept = tmp_path / "captions.jsonl"
    caption(folder, model_at(emulator), resume=kept)
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sorted((line["file"], line["page"]) for line in lines) == [("report.pdf", 1), ("report.pdf", 2)]


def test_a_file_url_is_its_path(emulator, folder):
    (path,) = draw(folder, 1)
    (node,) = caption(path.as_uri(), model_at(emulator)).nodes
    assert node.image_path == str(path)


def test_a_node_can_be_captioned_again_with_another_prompt(emulator, report):
    nodes = caption(report, model_at(emulator)).nodes
    again = caption(nodes, model_at(emulator), prompt="What is in the image?").nodes
    assert [node.text.splitlines()[-1] for node in again] == ["Sales in March", "Rain in May"]
    for before, after in zip(nodes, again, strict=True):
        assert after.text == f"{after.metadata['caption']}\n\n{before.text.splitlines()[-1]}"


def test_an_image_node_of_an_encrypted_file_is_opened_by_the_password(emulator, folder):
    path = folder / "secret.pdf"
    path.write_bytes(text_pdf("Plan", password="x"))
    given = ImageNode(image_path=str(path))
    assert caption([given], model_at(emulator), password="x").nodes[0].text.endswith("Plan")

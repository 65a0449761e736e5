"""`ImageCaptioner` in an `IngestionPipeline`: a store follows its folder, and nothing is asked twice."""

import asyncio
from io import BytesIO

import PIL.Image
import pytest
from llama_index.core import MockEmbedding, SimpleDirectoryReader, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, MetadataMode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from llama_vision.core.errors import LlamaVisionError
from llama_vision.llamaindex import ImageCaptioner, PageReader
from tests.captions.captioning import caption, draw, model_at, naming, words_in
from tests.emulator import completion
from tests.pdfs import color_content, pdf_of, text_pdf

# Qdrant's client says that in memory it needs no payload indexes, which LlamaIndex makes.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


def pipeline_of(*transformations):
    return IngestionPipeline(
        transformations=[*transformations, MockEmbedding(4)],
        docstore=SimpleDocumentStore(),
        vector_store=QdrantVectorStore("pages", client=QdrantClient(":memory:")),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )


def stored(pipeline):
    """The files and pages in the vector store."""
    nodes = pipeline.vector_store.get_nodes()
    return sorted(node.metadata["file_name"] + node.metadata.get("page_label", "") for node in nodes)


def load(folder):
    reader = SimpleDirectoryReader(folder, file_extractor={".pdf": PageReader()})
    return reader.load_data()


def test_a_store_follows_its_folder_and_nothing_is_asked_twice(emulator, folder, tmp_path):
    emulator.always(naming)
    report = folder / "report.pdf"
    report.write_bytes(text_pdf("Sales in March", "Rain in May"))
    first, second = draw(folder, 2)
    captioner = ImageCaptioner(llm=model_at(emulator), resume=str(tmp_path / "captions.jsonl"))
    pipeline = pipeline_of(captioner)
    pipeline.run(documents=load(folder))
    assert stored(pipeline) == ["00.png", "01.png", "report.pdf1", "report.pdf2"]
    assert len(emulator.requests) == 4
    pipeline.run(documents=load(folder))
    assert len(emulator.requests) == 4
    first.unlink()
    report.write_bytes(text_pdf("Sales in March"))
    draw(folder, 1, first=2)
    pipeline.run(documents=load(folder))
    assert stored(pipeline) == ["01.png", "02.png", "report.pdf1"]
    assert len(emulator.requests) == 5
    assert second.exists()


def scans(path, *colors):
    """Write a PDF of pages without text, each of one color."""
    path.write_bytes(pdf_of(*[color_content(*color) for color in colors]))


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pixel(received):
    """The color in the middle of the image that was sent."""
    image = PIL.Image.open(BytesIO(received.images[0])).convert("RGB")
    return image.getpixel((image.width // 2, image.height // 2))


def test_a_page_that_is_removed_from_a_scan_leaves_the_store(emulator, folder):
    emulator.always(naming)
    scan = folder / "scan.pdf"
    pipeline = pipeline_of(ImageCaptioner(llm=model_at(emulator)))
    for colors, pages in [
        ((RED, GREEN, BLUE), "123"),
        ((RED, GREEN), "12"),
        ((GREEN,), "1"),
        ((RED, GREEN), "12"),
    ]:
        scans(scan, *colors)
        pipeline.run(documents=load(folder))
        assert stored(pipeline) == [f"scan.pdf{page}" for page in pages]


def test_a_scan_that_is_replaced_is_captioned_anew(emulator, folder):
    emulator.always(lambda received: completion(str(pixel(received))))
    pipeline = pipeline_of(ImageCaptioner(llm=model_at(emulator)))
    for color in (RED, BLUE):
        scans(folder / "scan.pdf", color)
        pipeline.run(documents=load(folder))
        (node,) = pipeline.vector_store.get_nodes()
        assert node.metadata["caption"] == str(color)


def test_an_image_whose_document_gets_another_id_in_each_run_leaves_the_store(emulator, folder):
    first, _ = draw(folder, 2)
    pipeline = pipeline_of(ImageCaptioner(llm=model_at(emulator)))
    emulator.always(naming)
    for _ in range(2):
        pipeline.run(documents=load(folder))
    first.unlink()
    pipeline.run(documents=load(folder))
    assert stored(pipeline) == ["01.png"]


def test_a_page_that_two_files_have_is_stored_for_each(emulator, folder):
    emulator.always(naming)
    pipeline = pipeline_of(ImageCaptioner(llm=model_at(emulator)))
    for name in ("a.pdf", "b.pdf"):
        (folder / name).write_bytes(text_pdf("Annex"))
        pipeline.run(documents=load(folder))
    assert stored(pipeline) == ["a.pdf1", "b.pdf1"]
    (folder / "b.pdf").unlink()
    pipeline.run(documents=load(folder))
    assert stored(pipeline) == ["a.pdf1"]


def test_a_node_that_was_split_off_a_page_leaves_the_store_with_it(emulator, folder):
    emulator.always(naming)
    pipeline = pipeline_of(SentenceSplitter(), ImageCaptioner(llm=model_at(emulator)))
    for texts, expected in [(("Rain", "Sun"), ["a.pdf1", "a.pdf2"]), (("Rain",), ["a.pdf1"])]:
        (folder / "a.pdf").write_bytes(text_pdf(*texts))
        pipeline.run(documents=load(folder))
        assert stored(pipeline) == expected


@pytest.mark.parametrize("in_qdrant", [False, True])
def test_a_node_of_caption_images_is_removed_by_its_own_id(emulator, folder, in_qdrant):
    (folder / "report.pdf").write_bytes(text_pdf("Sales in March", "Rain in May"))
    nodes = caption(folder, model_at(emulator)).nodes
    store = QdrantVectorStore("pages", client=QdrantClient(":memory:")) if in_qdrant else SimpleVectorStore()
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(4))
    index.delete_ref_doc(nodes[0].node_id, delete_from_docstore=True)
    found = index.as_retriever(similarity_top_k=5).retrieve("Sales")
    assert [one.node.metadata["page_label"] for one in found] == ["2"]
    index.insert_nodes(nodes)  # again, as after another run: none is there twice
    found = index.as_retriever(similarity_top_k=5).retrieve("Sales")
    assert sorted(one.node.metadata["page_label"] for one in found) == ["1", "2"]


def test_text_passes_unchanged_and_async_is_the_same(emulator, folder):
    draw(folder, 1)
    text = Document(text="words")
    given = [text, *load(folder)]
    captioner = ImageCaptioner(llm=model_at(emulator), prompt="What is it?", options={"max_tokens": 7})
    for found in (captioner(given), asyncio.run(captioner.acall(given))):
        assert found[0] is text
        assert found[1].metadata["file_name"] == "00.png"
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert given[1].node_id not in found[1].get_content(mode)
    assert emulator.requests[0].body["max_tokens"] == 7
    assert words_in(emulator.requests[0]) == "What is it?"


def test_a_failure_is_raised_so_that_the_pipeline_asks_again(emulator, folder, tmp_path):
    draw(folder, 2)
    captioner = ImageCaptioner(llm=model_at(emulator), resume=str(tmp_path / "captions.jsonl"), concurrency=1)
    pipeline = pipeline_of(captioner)
    emulator.script(completion("A cat."), emulator.refusal(400, "Not this one"))
    with pytest.raises(LlamaVisionError, match="1 of 2 images have no caption"):
        pipeline.run(documents=load(folder))
    pipeline.run(documents=load(folder))
    assert stored(pipeline) == ["00.png", "01.png"]
    assert len(emulator.requests) == 3


def test_no_key_is_in_what_a_pipeline_writes(emulator):
    captioner = ImageCaptioner(llm=model_at(emulator), password="s3cret-word")
    for written in (repr(captioner), str(captioner.to_dict())):
        assert emulator.api_key not in written
        assert "s3cret-word" not in written

"""`show` has the pages and images of an answer beside it, with usage and cost; `show_pages` what a model is shown of a document."""

import asyncio
import base64

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, TextNode

from llama_vision import pages
from llama_vision.core.errors import DocumentError, ImageError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.jupyter import show, show_contact_sheet, show_images, show_pages
from llama_vision.langchain import ChatLlamaVision, create_page_chain
from llama_vision.llamaindex import LlamaVision, PageQueryEngine, caption_images
from llama_vision.testing import ScriptedServer
from tests.llamaindex.gallery import Shelf
from tests.pdfs import text_pdf


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(text_pdf("one", "two", "three"))
    return path


@pytest.fixture
def server(report):
    with ScriptedServer(*["A page."] * 3) as captioning:
        nodes = caption_images(report, LlamaVision(**captioning.model_options), progress=False).nodes
    with ScriptedServer("Two [report.pdf, p. 2].") as server:
        server.nodes = nodes[:2]
        yield server


@pytest.mark.parametrize("streaming", [False, True])
def test_an_engines_answer_is_shown_with_its_pages_usage_and_citations(server, streaming, capsys):
    engine = PageQueryEngine(Shelf(server.nodes), LlamaVision(**server.model_options), streaming=streaming)
    displayed = show(engine.query("What?"), notebook=False)
    assert displayed.text == "Two [report.pdf, p. 2]."
    assert displayed.reply.usage.input_tokens == 10
    assert [source.citation for source in displayed.sources] == ["report.pdf, p. 1", "report.pdf, p. 2"]
    printed = capsys.readouterr().out
    assert "10 tokens in" in printed
    assert printed.endswith("Sources: report.pdf, p. 1; report.pdf, p. 2\n")
    html = displayed._repr_html_()
    assert html.count('src="data:image/') == 2
    assert "report.pdf, p. 2</figcaption>" in html


def test_an_asynchronous_stream_has_them_too(server):
    engine = PageQueryEngine(Shelf(server.nodes), LlamaVision(**server.model_options), streaming=True)

    async def ask():
        return await show(engine.aquery("What?"), notebook=False)

    displayed = asyncio.run(ask())
    assert displayed.text == "Two [report.pdf, p. 2]."
    assert displayed.reply.usage.output_tokens > 0
    assert len(displayed.sources) == 2


def test_sources_of_llamaindexs_own_engines_are_shown(server):
    llm = LlamaVision(**server.model_options)
    engine = RetrieverQueryEngine.from_args(Shelf(server.nodes), llm=llm, multimodal=True)
    displayed = show(engine.query("What?"), notebook=False)
    assert [source.thumbnail is not None for source in displayed.sources] == [True, True]


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_of_a_chain_is_shown_with_its_pages(server, report, stream):
    found = [
        Document(
            "two",
            metadata={"source": str(report), "page_label": "2", "caption": "two", "thumbnail": "data:,"},
        )
    ]
    chain = create_page_chain(RunnableLambda(lambda _: found), ChatLlamaVision(**server.model_options))
    displayed = show(chain.stream("What?") if stream else chain.invoke("What?"), notebook=False)
    assert displayed.text == "Two [report.pdf, p. 2]."
    assert [source.citation for source in displayed.sources] == ["report.pdf, p. 2"]
    assert displayed.reply.usage.input_tokens == 10


def test_a_source_without_an_image_that_can_be_read_is_named(server):
    data = base64.b64encode(SAMPLE_IMAGES["sign"].read_bytes()).decode()
    nodes = [
        TextNode(text="words", metadata={"file_name": "notes.md"}),
        ImageNode(image_path="/nowhere/gone.png", metadata={"file_path": "/nowhere/gone.png"}),
        ImageNode(image=data, metadata={"file_name": "sign.png"}),
        ImageNode(image="no base64", metadata={"file_name": "<b>.png"}),
    ]
    answer = PageQueryEngine(Shelf([nodes[0]]), LlamaVision(**server.model_options)).query("What?")
    answer.source_nodes = Shelf(nodes).retrieve("What?")
    displayed = show(answer, notebook=False)
    shown = {source.citation: source.thumbnail is not None for source in displayed.sources}
    assert shown == {"notes.md": False, "gone.png": False, "sign.png": True, "<b>.png": False}
    assert "&lt;b&gt;.png" in displayed._repr_html_()
    assert "<b>" not in displayed._repr_html_()


def test_pages_are_shown_as_the_model_sees_them(report, capsys):
    show_pages(report, "2-3", notebook=False)
    assert capsys.readouterr().out == (
        "[image 1] report.pdf, page 2 of 3\n[image 2] report.pdf, page 3 of 3\n"
    )
    show_pages(pages(report, 1), notebook=False)
    show_pages(pages(report, 1)[0], notebook=False)
    assert capsys.readouterr().out == "[image 1] report.pdf, page 1 of 3\n" * 2
    with pytest.raises(DocumentError):
        show_pages(report, 9, notebook=False)


def test_a_contact_sheet_is_shown(report, capsys):
    show_contact_sheet([*pages(report), SAMPLE_IMAGES["circle"]], notebook=False)
    assert capsys.readouterr().out == "[image 1] contact sheet of 4 images\n"
    with pytest.raises(ImageError):
        show_contact_sheet([], notebook=False)


def test_a_folder_of_images_is_shown(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(SAMPLE_IMAGES["circle"].read_bytes())
    (tmp_path / "notes.md").write_text("words")
    show_images(tmp_path, notebook=False)
    assert capsys.readouterr().out == "[a.png] a.png\n"

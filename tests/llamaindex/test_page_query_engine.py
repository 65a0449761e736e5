"""`PageQueryEngine`: the model sees the found pages, and answers cite them, in memory as in an embedded store."""

import asyncio

import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.base.response.schema import AsyncStreamingResponse
from llama_index.core.llms import ChatMessage
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.schema import TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.usage import Usage
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.llamaindex import PageQueryEngine, PageReader
from tests.captions.captioning import caption, model_at, words_in
from tests.emulator import chunks, completion, event_stream
from tests.llamaindex.gallery import Shelf
from tests.pdfs import text_pdf

# Qdrant's client says that in memory it needs no payload indexes, which LlamaIndex makes.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
STORES = pytest.mark.parametrize("store", ["memory", "qdrant"])


def index_of(nodes, store):
    if store == "memory":
        return VectorStoreIndex(nodes, embed_model=MockEmbedding(4))
    context = StorageContext.from_defaults(vector_store=qdrant_store())
    return VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(4))


def qdrant_store():
    client = QdrantClient(":memory:")
    other = AsyncQdrantClient(":memory:")
    other._client.collections = client._client.collections  # what is in memory belongs to one client else
    return QdrantVectorStore("pages", client=client, aclient=other)


@pytest.fixture
def nodes(emulator, folder):
    (folder / "report.pdf").write_bytes(text_pdf("Sales in March", "Rain in May", "Sales in March"))
    (folder / "circle.png").write_bytes(SAMPLE_IMAGES["circle"].read_bytes())
    found = caption(folder, model_at(emulator)).nodes
    emulator.requests.clear()
    return found


@STORES
def test_the_model_is_shown_the_pages_found_and_its_answer_cites_them(emulator, nodes, store):
    emulator.always(completion("It rained [report.pdf, p. 2]."))
    retriever = index_of(nodes, store).as_retriever(similarity_top_k=4)
    response = PageQueryEngine(retriever, model_at(emulator)).query("Did it rain?")
    assert str(response) == "It rained [report.pdf, p. 2]."
    assert response.metadata["citations"] == ["report.pdf, p. 2"]
    (request,) = emulator.requests
    assert len(request.images) == 3  # of two equal pages one is shown
    assert SAMPLE_IMAGES["circle"].read_bytes() in request.images
    assert "Did it rain?" in words_in(request)
    assert "report.pdf, p. 2\nRain in May" in words_in(request)
    sources = [source.node.metadata for source in response.source_nodes]
    assert sorted(one.get("page_label", "") for one in sources) == ["", "1", "2", "3"]
    assert all(one["thumbnail"].startswith("data:image/") for one in sources)
    kinds = [part["type"] for part in request.body["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "image_url", "text"]


@STORES
def test_the_same_asynchronously(emulator, nodes, store):
    emulator.always(completion("Rain [report.pdf, p. 2]."))
    retriever = index_of(nodes, store).as_retriever(similarity_top_k=4)
    response = asyncio.run(PageQueryEngine(retriever, model_at(emulator)).aquery("Rain?"))
    assert response.metadata["citations"] == ["report.pdf, p. 2"]


def test_equal_pages_are_both_cited(emulator, nodes):
    emulator.always(completion("Sales."))
    engine = PageQueryEngine(Shelf([nodes[1], nodes[3]]), model_at(emulator))
    response = engine.query("What?")
    assert response.metadata["citations"] == ["report.pdf, p. 1", "report.pdf, p. 3"]
    assert "Image 1: report.pdf, p. 1; report.pdf, p. 3\nSales in March" in words_in(emulator.requests[0])


def test_page_1_is_not_cited_by_page_12(emulator, nodes):
    twelfth = nodes[2].model_copy(update={"metadata": {**nodes[2].metadata, "page_label": "12"}})
    emulator.always(completion("See report.pdf, p. 12."))
    engine = PageQueryEngine(Shelf([nodes[1], twelfth]), model_at(emulator))
    assert engine.query("What?").metadata["citations"] == ["report.pdf, p. 12"]


def test_usage_and_cost_come_through(emulator, nodes):
    response = PageQueryEngine(Shelf(nodes[:1]), model_at(emulator)).query("What?")
    reported = emulator.dialect.reply(emulator.requests[0])["usage"]
    usage = Usage.from_openai(response.metadata["usage"])
    assert (usage.input_tokens, usage.output_tokens) == (
        reported["prompt_tokens"],
        reported["completion_tokens"],
    )
    assert usage.cost_usd == pytest.approx(reported["estimated_cost"])


def test_a_streamed_answer_has_its_citations_and_usage_once_it_has_ended(emulator, nodes):
    engine = PageQueryEngine(Shelf(nodes[1:3]), model_at(emulator), streaming=True)
    emulator.always(event_stream(*chunks(completion("Rain [report.pdf, p. 2].")), "[DONE]"))
    response = engine.query("Rain?")
    assert response.metadata == {}
    assert "".join(response.response_gen) == "Rain [report.pdf, p. 2]."
    assert response.metadata["citations"] == ["report.pdf, p. 2"]
    assert response.metadata["usage"]["prompt_tokens"] > 0

    async def ask():
        streamed = await engine.aquery("Rain?")
        assert isinstance(streamed, AsyncStreamingResponse)
        return "".join([piece async for piece in streamed.async_response_gen()]), streamed.metadata

    text, metadata = asyncio.run(ask())
    assert (text, metadata["citations"]) == ("Rain [report.pdf, p. 2].", ["report.pdf, p. 2"])


@pytest.mark.parametrize("streaming", [False, True])
def test_where_nothing_is_found_the_model_is_not_asked(emulator, nodes, streaming):
    nothing = [SimilarityPostprocessor(similarity_cutoff=1.5)]
    engine = PageQueryEngine(
        Shelf(nodes), model_at(emulator), node_postprocessors=nothing, streaming=streaming
    )
    for response in (engine.query("What?"), asyncio.run(engine.aquery("What?"))):
        assert (str(response), response.source_nodes, response.metadata) == (
            "Empty Response",
            [],
            {"citations": []},
        )
    assert emulator.requests == []


def test_nodes_of_text_are_quoted(emulator, nodes):
    note = TextNode(text="Umbrellas are sold out.", metadata={"file_name": "notes.md"})
    emulator.always(completion("Sold out (notes.md)."))
    response = PageQueryEngine(Shelf([nodes[2], note]), model_at(emulator)).query("Umbrellas?")
    assert "Text: notes.md\nUmbrellas are sold out." in words_in(emulator.requests[0])
    assert response.metadata["citations"] == ["notes.md"]


def test_the_prompt_can_be_replaced(emulator, nodes):
    engine = PageQueryEngine(
        Shelf(nodes[:1]), model_at(emulator), text_qa_template=PromptTemplate("{query_str}")
    )
    engine.query("What {color} is it?")
    assert words_in(emulator.requests[-1]) == "What {color} is it?"
    chat = ChatPromptTemplate(
        [ChatMessage(role="user", content="Be brief."), ChatMessage(role="user", content="{query_str}")]
    )
    engine.update_prompts({"text_qa_template": chat})
    assert engine.get_prompts() == {"text_qa_template": chat}
    engine.query("What?")
    assert emulator.requests[-1].images == [SAMPLE_IMAGES["circle"].read_bytes()]
    assert words_in(emulator.requests[-1]).endswith("What?")


def test_nodes_of_the_page_reader_do_as_well(emulator, folder):
    path = folder / "report.pdf"
    path.write_bytes(text_pdf("Sales in March"))
    response = PageQueryEngine(Shelf(PageReader().load_data(path)), model_at(emulator)).query("What?")
    assert response.metadata["citations"] == ["report.pdf, p. 1"]
    assert "Sales in March" in words_in(emulator.requests[0])


def test_too_many_images_for_a_provider_is_an_error_that_says_what_to_set(nodes, emulator):
    llm = model_at(emulator, provider="cloudflare", account_id="a" * 32)
    with pytest.raises(
        UnsupportedInputError,
        match=r"similarity_top_k=1.*image_policy='grid'|image_policy='grid'.*similarity_top_k=1",
    ):
        PageQueryEngine(Shelf(nodes), llm).query("What?")

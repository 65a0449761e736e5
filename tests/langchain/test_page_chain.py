"""`CaptionLoader` and `create_page_chain`: retrieval over pages as LangChain does it, with citations, in memory and in Qdrant."""

import asyncio

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.messages import AIMessageChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qdrant import QdrantVectorStore

from llama_vision.core.errors import ConfigurationError, ImageError, LlamaVisionError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import CaptionLoader, ChatLlamaVision, create_page_chain
from tests.captions.captioning import naming, words_in
from tests.emulator import chunks, completion, event_stream
from tests.pdfs import text_pdf

CIRCLE = SAMPLE_IMAGES["circle"].read_bytes()
EMBEDDING = DeterministicFakeEmbedding(size=4)


@pytest.fixture
def model(emulator):
    return ChatLlamaVision(
        provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key, max_retries=0
    )


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "reports"
    place.mkdir()
    (place / "report.pdf").write_bytes(text_pdf("Sales in March", "Rain in May", "Sales in March"))
    (place / "circle.png").write_bytes(CIRCLE)
    (place / "notes.md").write_text("words")
    return place


def retriever_of(documents, store):
    if store == "memory":
        found = InMemoryVectorStore.from_documents(documents, EMBEDDING)
    else:
        found = QdrantVectorStore.from_documents(documents, EMBEDDING, location=":memory:")
    return found.as_retriever(search_kwargs={"k": 4})


def shelf(documents):
    return RunnableLambda(lambda _: documents)


def test_each_image_and_page_is_a_document(emulator, model, folder):
    emulator.always(naming)
    loader = CaptionLoader(folder, model)
    circle, first, second, third = loader.load()
    assert circle.metadata["source"] == str(folder / "circle.png")
    assert circle.page_content == circle.metadata["caption"]
    assert (first.metadata["page_label"], first.metadata["page_count"]) == ("1", 3)
    assert second.page_content == f"{second.metadata['caption']}\n\nRain in May"
    assert third.metadata["thumbnail"].startswith("data:image/")
    assert len({document.id for document in (circle, first, second, third)}) == 4
    assert (loader.num_asked, loader.skipped, loader.failures) == (3, [folder / "notes.md"], [])
    assert loader.usage.cost_usd is None or loader.usage.cost_usd > 0
    assert len(emulator.requests) == 3


def test_captions_of_llamaindex_are_not_asked_for_again(emulator, model, folder, tmp_path):
    from llama_vision.llamaindex import LlamaVision, caption_images

    llm = LlamaVision(provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key)
    kept = tmp_path / "captions.jsonl"
    caption_images(folder, llm, resume=kept, progress=False)
    loader = CaptionLoader(folder, model, resume=kept)
    assert len(asyncio.run(loader.aload())) == 4
    assert loader.num_asked == 0


def test_a_failure_is_raised_or_left_out(emulator, model, folder):
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.7 and nothing")
    with pytest.raises(LlamaVisionError, match=r"1 of 5 images have no caption\. .*damaged\.pdf"):
        CaptionLoader(folder, model).load()
    loader = CaptionLoader(folder, model, silent_errors=True)
    assert len(loader.load()) == 4
    assert [failure.path.name for failure in loader.failures] == ["damaged.pdf"]
    with pytest.raises(ImageError, match="no folder"):
        CaptionLoader(folder / "nowhere", model).load()
    with pytest.raises(ConfigurationError, match="concurrency"):
        CaptionLoader(folder, model, concurrency=0)


def test_a_store_follows_its_folder(emulator, model, folder, tmp_path):
    emulator.always(naming)
    loader = CaptionLoader(folder, model, resume=tmp_path / "captions.jsonl")
    store, records = InMemoryVectorStore(EMBEDDING), InMemoryRecordManager("reports")
    records.create_schema()

    def run():
        found = index(loader, records, store, cleanup="full", key_encoder="sha256")
        return found["num_added"], found["num_skipped"], found["num_deleted"]

    assert run() == (4, 0, 0)
    assert run() == (0, 4, 0)
    (folder / "circle.png").unlink()
    (folder / "report.pdf").write_bytes(text_pdf("Sales in March", "Snow in June", "Sales in March"))
    assert run() == (1, 2, 2)
    assert len(emulator.requests) == 4


@pytest.mark.parametrize("store", ["memory", "qdrant"])
def test_the_model_is_shown_the_pages_found_and_its_answer_cites_them(emulator, model, folder, store):
    chain = create_page_chain(retriever_of(CaptionLoader(folder, model).load(), store), model)
    emulator.requests.clear()
    emulator.always(completion("It rained [report.pdf, p. 2]."))
    found = chain.invoke("Did it rain?")
    assert list(found) == ["input", "context", "answer", "citations"]
    assert found["answer"].text == "It rained [report.pdf, p. 2]."
    assert found["answer"].usage_metadata["input_tokens"] > 0
    assert found["citations"] == ["report.pdf, p. 2"]
    (request,) = emulator.requests
    assert len(request.images) == 3  # of two equal pages one is shown
    assert CIRCLE in request.images
    assert "report.pdf, p. 2\nRain in May" in words_in(request)
    assert "Did it rain?" in words_in(request)
    again = asyncio.run(chain.ainvoke({"input": "Did it rain?"}))
    assert again["citations"] == ["report.pdf, p. 2"]


def test_the_answer_streams(emulator, model, folder):
    chain = create_page_chain(shelf(CaptionLoader(folder, model).load()), model)
    emulator.always(event_stream(*chunks(completion("Rain [report.pdf, p. 2].")), "[DONE]"))
    pieces = list(chain.stream("Rain?"))
    answer = [piece["answer"] for piece in pieces if "answer" in piece]
    assert all(isinstance(chunk, AIMessageChunk) for chunk in answer)
    assert len(answer) > 2
    assert pieces[-1] == {"citations": ["report.pdf, p. 2"]}


def test_where_nothing_is_found_the_model_is_not_asked(emulator, model):
    found = create_page_chain(shelf([]), model).invoke("What?")
    assert (found["answer"].text, found["citations"]) == ("Nothing was found.", [])
    assert emulator.requests == []


def test_documents_of_text_are_quoted(emulator, model, folder):
    note = Document("Umbrellas are sold out.", metadata={"source": "notes/notes.md"})
    emulator.always(completion("Sold out [notes.md]."))
    found = create_page_chain(shelf([note]), model).invoke("Umbrellas?")
    assert "Text: notes.md\nUmbrellas are sold out." in words_in(emulator.requests[0])
    assert found["citations"] == ["notes.md"]


def test_the_prompt_can_be_replaced_and_encrypted_pages_are_read(emulator, model, folder):
    (folder / "secret.pdf").write_bytes(text_pdf("Plan", password="x"))
    documents = CaptionLoader(folder / "secret.pdf", model, password="x").load()
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")])
    found = create_page_chain(shelf(documents), model, prompt, password="x").invoke("What {plan}?")
    assert words_in(emulator.requests[-1]) == "What {plan}?"
    assert emulator.requests[-1].body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert found["citations"] == ["secret.pdf, p. 1"]
    with pytest.raises(ImageError, match="password"):
        create_page_chain(shelf(documents), model).invoke("What?")

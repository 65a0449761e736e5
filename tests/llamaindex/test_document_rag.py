"""Retrieval over forty drawn pages, offline with the bundled models: right page, right answer, and none where the page is withheld."""

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.postprocessor import SimilarityPostprocessor

from benchmarks.rag import minilm
from llama_vision.llamaindex import LlamaVision, PageQueryEngine, caption_images
from llama_vision.llamaindex.caption_inputs import node_citation
from tests.llamaindex import reports

NUM_PAGES, NUM_QUESTIONS = 40, 60
CUTOFF = 0.6  # of MiniLM's cosine similarity: here right pages have more, and others less


def engine_over(nodes, embedding, llm):
    return PageQueryEngine(
        VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=1),
        llm,
        text_qa_template=reports.TEMPLATE,
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=CUTOFF)],
    )


@pytest.mark.slow
def test_the_right_page_is_cited_and_the_answer_read_off_it(tmp_path):
    asked = reports.draw(tmp_path)
    llm, embedding = LlamaVision(provider="local", max_tokens=80), minilm()
    captions = caption_images(tmp_path, llm, progress=False)
    assert (len(captions.nodes), len(asked)) == (NUM_PAGES, NUM_QUESTIONS)
    for node in captions.nodes:
        node.embedding = embedding.get_text_embedding(node.text)
    engine = engine_over(captions.nodes, embedding, llm)
    cited = right = withheld = 0
    for question in asked:
        response = engine.query(question.text)
        cited += response.metadata["citations"] == [question.citation]
        right += str(response) == question.truth
        others = [node for node in captions.nodes if node_citation(node) != question.citation]
        withheld += str(engine_over(others, embedding, llm).query(question.text)) == question.truth
    print(f"\nOf {len(asked)} questions about {len(captions.nodes)} pages:")
    print(
        f"  right page first: {cited}\n  right answer: {right}\n  right answer, the page withheld: {withheld}"
    )
    assert cited >= 0.9 * len(asked)
    assert right >= 0.8 * len(asked)
    assert withheld == 0

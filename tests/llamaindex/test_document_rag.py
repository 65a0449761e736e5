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

pytestmark = pytest.mark.slow


class Library:
    """The captioned pages, and engines over them."""

    def __init__(self, folder):
        self.questions = reports.draw(folder)
        self._llm, self._embedding = LlamaVision(provider="local", max_tokens=80), minilm()
        self._nodes = caption_images(folder, self._llm, progress=False).nodes
        assert (len(self._nodes), len(self.questions)) == (NUM_PAGES, NUM_QUESTIONS)
        for node in self._nodes:
            node.embedding = self._embedding.get_text_embedding(node.text)

    def ask(self, text, cutoff=-1.0, without=None):
        """Ask about the page that is found, if its score reaches the cutoff; one page may be withheld."""
        nodes = [node for node in self._nodes if node_citation(node) != without]
        engine = PageQueryEngine(
            VectorStoreIndex(nodes, embed_model=self._embedding).as_retriever(similarity_top_k=1),
            self._llm,
            text_qa_template=reports.TEMPLATE,
            node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=cutoff)],
        )
        return engine.query(text)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(tmp_path_factory.mktemp("reports"))


def shows(response, question):
    return response.metadata["citations"] == [question.citation]


def test_the_right_page_is_cited_and_the_answer_read_off_it(library):
    cited = right = withheld = 0
    for question in library.questions:
        response = library.ask(question.text, CUTOFF)
        cited += shows(response, question)
        right += str(response) == question.truth
        withheld += str(library.ask(question.text, CUTOFF, question.citation)) == question.truth
    report(cited, right, withheld)
    assert cited >= 0.9 * NUM_QUESTIONS
    assert right >= 0.8 * NUM_QUESTIONS
    assert withheld == 0


def test_questions_in_other_words_with_a_cutoff_found_on_other_pages(library):
    halves = [
        [one for one in library.questions if one.citation.startswith(("report1", "report2"))],
        [one for one in library.questions if one.citation.startswith(("report3", "report4"))],
    ]
    first = right = withheld = 0
    for asked, others in (halves, reversed(halves)):
        cutoff = cutoff_for(library, others)
        for question in asked:
            first += shows(library.ask(question.paraphrase), question)
            right += str(library.ask(question.paraphrase, cutoff)) == question.truth
            withheld += str(library.ask(question.paraphrase, cutoff, question.citation)) == question.truth
    report(first, right, withheld)
    assert first >= 0.9 * NUM_QUESTIONS
    assert right >= 0.8 * NUM_QUESTIONS
    assert withheld == 0


def cutoff_for(library, questions):
    """The lowest of the scores that best tell right pages from the best of the others."""
    right, wrong = [], []
    for question in questions:
        response = library.ask(question.paraphrase)
        if shows(response, question):
            right.append(response.source_nodes[0].score)
        wrong.append(library.ask(question.paraphrase, without=question.citation).source_nodes[0].score)

    def separation(cutoff):
        return sum(score >= cutoff for score in right) - sum(score >= cutoff for score in wrong)

    return max(sorted(right + wrong), key=separation)


def report(first, right, withheld):
    print(f"\nOf {NUM_QUESTIONS} questions about {NUM_PAGES} pages:")
    print(
        f"  right page first: {first}\n  right answer: {right}\n  right answer, the page withheld: {withheld}"
    )

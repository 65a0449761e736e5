"""Images that LlamaIndex itself leaves out before any model is asked, which no model can notice.

Where one of these tests fails, LlamaIndex has mended it: the advice against that way can go.
"""

import asyncio

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import ImageDocument, ImageNode
from llama_index.core.tools import FunctionTool

from tests.emulator import completion
from tests.llamaindex.cats import model_at
from tests.llamaindex.engines import FINDS, engine_over, index_over
from tests.llamaindex.gallery import FILES, NODES, Shelf, in_base64, nodes_of, seen

pytestmark = pytest.mark.usefixtures("own_loop")


def test_a_query_engine_that_is_not_told_to_be_multimodal_reads_texts_alone(emulator, paths):
    engine = RetrieverQueryEngine.from_args(Shelf(nodes_of(paths)), llm=model_at(emulator))
    engine.query("What?")
    assert seen(emulator) == [[]]


def test_generation_asks_without_what_was_retrieved(emulator, paths):
    engine_over(nodes_of(paths), model_at(emulator), ResponseMode.GENERATION).query("What?")
    assert seen(emulator) == [[]]


def test_simple_summarize_cuts_what_does_not_fit_into_the_context(emulator, paths):
    nodes = [NODES["ImageNode of a path"](paths, number % 3) for number in range(40)]
    llm = model_at(emulator, model="llama-3.2-90b-vision")
    engine_over(nodes, llm, ResponseMode.SIMPLE_SUMMARIZE).query("What?")
    assert [len(images) for images in seen(emulator)] == [14]


def test_an_index_passes_over_images_that_have_neither_text_nor_metadata(emulator, paths):
    nodes = [ImageNode(image_path=str(path)) for path in paths]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    assert index.as_retriever(similarity_top_k=3).retrieve("What?") == []


def test_an_index_forgets_the_bytes_of_image_documents_and_says_so_when_asked(emulator):
    documents = [ImageDocument(text="An image", image=in_base64(number)) for number in range(3)]
    index = VectorStoreIndex(documents, embed_model=MockEmbedding(embed_dim=4))
    with pytest.raises(ValueError, match="No valid source"):
        index.as_query_engine(llm=model_at(emulator), multimodal=True).query("What?")
    assert emulator.requests == []


def test_the_multi_modal_index_passes_over_image_documents(paths):
    documents = [ImageDocument(text="An image", image_path=str(path)) for path in paths]
    found = index_over(documents).as_retriever(**FINDS).retrieve("What?")
    assert [node.text for node in found] == ["Some words."]


# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_react_agent_tells_the_words_of_a_tools_result_alone(emulator):
    def look() -> ImageBlock:
        """Take an image."""
        return ImageBlock(image=FILES[0])

    async def ran():
        return await ReActAgent(tools=[FunctionTool.from_defaults(look)], llm=model_at(emulator)).run("Look.")

    emulator.script(
        completion("Thought: I look.\nAction: look\nAction Input: {}"),
        completion("Thought: I can answer.\nAnswer: Nothing."),
    )
    asyncio.run(ran())
    assert seen(emulator) == [[], []]

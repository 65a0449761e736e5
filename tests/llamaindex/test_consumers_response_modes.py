"""Query engines over pictures in every response mode: what was retrieved is what the model is shown."""

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.prompts import RichPromptTemplate
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.response_synthesizers import ResponseMode

from llama_vision.llamaindex import LlamaVision
from tests.llamaindex.cats import TOM, Cat, called, model_at
from tests.llamaindex.engines import engine_over
from tests.llamaindex.gallery import (
    BOTH,
    EVERY_WAY,
    NODES,
    WAYS,
    Shelf,
    nodes_of,
    query,
    seen,
)

pytestmark = pytest.mark.usefixtures("own_loop")
TOGETHER = [[0, 1, 2]]
ONE_BY_ONE = [[0], [1], [2]]
SEEN = {
    ResponseMode.COMPACT: TOGETHER,
    ResponseMode.REFINE: ONE_BY_ONE,
    ResponseMode.TREE_SUMMARIZE: TOGETHER,
    ResponseMode.SIMPLE_SUMMARIZE: TOGETHER,
    ResponseMode.ACCUMULATE: ONE_BY_ONE,
    ResponseMode.COMPACT_ACCUMULATE: TOGETHER,
}
WITHOUT_IMAGES = {ResponseMode.GENERATION, ResponseMode.NO_TEXT, ResponseMode.CONTEXT_ONLY}
"""Which ask without what was retrieved, or don't ask."""
NEVER_STREAMED = {ResponseMode.ACCUMULATE, ResponseMode.COMPACT_ACCUMULATE}
MODES_AND_WAYS = [
    (mode, way) for mode in SEEN for way in WAYS if mode not in NEVER_STREAMED or way in ("whole", "awhole")
]


def test_no_response_mode_is_forgotten():
    assert set(ResponseMode) == SEEN.keys() | WITHOUT_IMAGES


@BOTH
@pytest.mark.parametrize(("mode", "way"), MODES_AND_WAYS)
def test_all_that_was_retrieved_is_shown(emulator, paths, model_class, mode, way):
    llm = model_at(emulator, model_class=model_class)
    engine = engine_over(nodes_of(paths), llm, mode, streaming="stream" in way)
    answer = query(engine, way)
    assert sorted(seen(emulator)) == SEEN[mode]
    assert f"I see {len(SEEN[mode][-1])} image(s)." in answer
    assert {received.streamed for received in emulator.requests} == {"stream" in way}
    assert all("What do you see?" in received.content.decode() for received in emulator.requests)


@BOTH
@pytest.mark.parametrize("mode", [ResponseMode.TREE_SUMMARIZE, *sorted(NEVER_STREAMED)])
def test_all_is_shown_where_a_mode_asks_several_times_at_once(emulator, paths, model_class, mode):
    llm = model_at(emulator, model_class=model_class)
    engine_over(nodes_of(paths), llm, mode, use_async=True).query("What do you see?")
    assert sorted(seen(emulator)) == SEEN[mode]


@EVERY_WAY
@pytest.mark.parametrize("kind", NODES)
def test_every_kind_of_node_shows_its_image(emulator, paths, kind, way):
    engine = engine_over(nodes_of(paths, kind), model_at(emulator), streaming="stream" in way)
    assert query(engine, way) == "I see 3 image(s)."
    assert seen(emulator) == TOGETHER


def cited_in_view_of(nodes, emulator, model_class, way):
    engine = CitationQueryEngine.from_args(
        None,
        retriever=Shelf(nodes),
        llm=model_at(emulator, model_class=model_class),
        multimodal=True,
        streaming="stream" in way,
    )
    assert query(engine, way) == "I see 3 image(s)."
    assert seen(emulator) == TOGETHER
    assert all(f"Source {number}:" in emulator.requests[0].content.decode() for number in (1, 2, 3))


@BOTH
@EVERY_WAY
def test_an_answer_with_citations_is_given_in_view_of_every_image(emulator, paths, model_class, way):
    cited_in_view_of(nodes_of(paths), emulator, model_class, way)


@pytest.mark.parametrize("kind", NODES)
def test_every_kind_of_node_can_be_cited(emulator, paths, kind):
    cited_in_view_of(nodes_of(paths, kind), emulator, LlamaVision, "whole")


@BOTH
@pytest.mark.parametrize("kind", ["ImageNode of a path, with text", "ImageNode of base64, with text"])
def test_images_come_out_of_a_real_index(emulator, paths, model_class, kind):
    index = VectorStoreIndex(nodes_of(paths, kind), embed_model=MockEmbedding(embed_dim=4))
    llm = model_at(emulator, model_class=model_class)
    engine = index.as_query_engine(llm=llm, multimodal=True, similarity_top_k=3)
    assert str(engine.query("What do you see?")) == "I see 3 image(s)."
    assert sorted(seen(emulator)[0]) == [0, 1, 2]


@BOTH
@pytest.mark.parametrize("kind", ["compact", "refine", "tree_summarize", "accumulate", "simple_summarize"])
def test_nothing_retrieved_asks_nothing(emulator, model_class, kind):
    engine = engine_over([], model_at(emulator, model_class=model_class), ResponseMode(kind))
    assert str(engine.query("What do you see?")) == "Empty Response"
    assert emulator.requests == []


@BOTH
def test_an_object_is_made_in_view_of_every_image(emulator, paths, model_class):
    emulator.script(called(TOM))
    llm = model_at(emulator, model_class=model_class)
    engine = engine_over(nodes_of(paths), llm.as_structured_llm(Cat))
    assert engine.query("Who is it?").response == Cat(name="Tom", age=3)
    assert seen(emulator) == TOGETHER


@pytest.mark.parametrize(
    ("mode", "requests"),
    [
        ("compact", [14, 14, 12]),
        ("refine", [1] * 40),
        ("tree_summarize", [14, 14, 12, 0]),
        ("accumulate", [1] * 40),
        ("compact_accumulate", [14, 14, 12]),
    ],
)
def test_more_images_than_a_context_holds_are_shown_in_several_requests(emulator, paths, mode, requests):
    """The 90B at DeepInfra has a context of 32,768 tokens, of which LlamaIndex gives 2,125 to each image."""
    nodes = [NODES["ImageNode of a path"](paths, number % 3) for number in range(40)]
    llm = model_at(emulator, model="llama-3.2-90b-vision")
    engine_over(nodes, llm, ResponseMode(mode)).query("What do you see?")
    assert [len(images) for images in seen(emulator)] == requests


def test_a_template_of_ones_own_shows_images_by_their_addresses(emulator, paths):
    template = RichPromptTemplate(
        '{% chat role="user" %}{% for message in context_messages %}{% for block in message.blocks %}'
        "{% if block.block_type == 'image' %}{{ block.inline_url() | image }}{% endif %}"
        "{% endfor %}{% endfor %}{{ query_str }}{% endchat %}"
    )
    engine = engine_over(nodes_of(paths), model_at(emulator), chat_content_qa_template=template)
    assert str(engine.query("How many?")) == "I see 3 image(s)."
    assert seen(emulator) == TOGETHER

"""The multi-modal index, its query engine and its chat engines show the model every picture that they find."""

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.query_engine import RetrieverQueryEngine

from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal
from tests.llamaindex.cats import model_at
from tests.llamaindex.engines import FINDS, MODES, chat, chat_engine, index_over
from tests.llamaindex.gallery import BOTH, EVERY_WAY, WAYS, nodes_of, query, seen

pytestmark = [
    pytest.mark.usefixtures("own_loop"),
    # The index's own query engine is an old one.
    pytest.mark.filterwarnings("ignore:Call to deprecated class SimpleMultiModalQueryEngine"),
]
PLAIN = "I see 3 image(s)."
# Both stores find an image that has a text, and `BaseRetriever` gives it once.
KINDS = [
    "ImageNode of a path",
    "ImageNode of a path, with text",
    "ImageNode of base64, with text",
]


def sets(requests):
    """Equally similar images come in any order."""
    return [sorted(images) for images in requests]


@BOTH
@pytest.mark.parametrize("way", ["whole", "awhole"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_image_to_text", [False, True])
def test_the_indexs_own_query_engine_shows_them_all(
    emulator, paths, model_class, way, kind, is_image_to_text
):
    index = index_over(nodes_of(paths, kind), is_image_to_text=is_image_to_text)
    engine = index.as_query_engine(llm=model_at(emulator, model_class=model_class), **FINDS)
    assert query(engine, way) == PLAIN
    assert sets(seen(emulator)) == [[0, 1, 2]]
    assert "Some words." in emulator.requests[0].content.decode()


@BOTH
def test_a_image_is_asked_about_images_like_it(emulator, paths, model_class):
    index = index_over(nodes_of(paths))
    engine = index.as_query_engine(llm=model_at(emulator, model_class=model_class), **FINDS)
    assert str(engine.image_query(str(paths[0]), "What do they share?")) == PLAIN
    assert sets(seen(emulator)) == [[0, 1, 2]]


@BOTH
@EVERY_WAY
def test_the_index_feeds_the_newer_query_engine(emulator, paths, model_class, way):
    engine = RetrieverQueryEngine.from_args(
        index_over(nodes_of(paths)).as_retriever(**FINDS),
        llm=model_at(emulator, model_class=model_class),
        multimodal=True,
        streaming="stream" in way,
    )
    assert query(engine, way) == PLAIN
    assert sets(seen(emulator)) == [[0, 1, 2]]


@pytest.mark.parametrize(("model_class", "warned"), [(LlamaVision, True), (LlamaVisionMultiModal, False)])
def test_only_one_of_the_two_is_taken_for_multi_modal_by_its_name(
    emulator, paths, caplog, model_class, warned
):
    index_over(nodes_of(paths)).as_query_engine(llm=model_at(emulator, model_class=model_class))
    assert ("does not appear to be a multi-modal LLM" in caplog.text) is warned


@BOTH
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", MODES)
def test_a_chat_engine_shows_them_in_every_turn(emulator, paths, model_class, mode, way):
    engine = chat_engine(emulator, paths, mode, model_class)
    assert chat(engine, way, "First?", "Second?") == [PLAIN, PLAIN]
    condensed = [[]] if mode is ChatMode.CONDENSE_PLUS_CONTEXT else []
    assert sets(seen(emulator)) == [[0, 1, 2], *condensed, [0, 1, 2]]
    texts = [turn["content"] for turn in emulator.requests[-1].body["messages"][:-1]]
    assert texts == ["First?", PLAIN]


@BOTH
@pytest.mark.parametrize("mode", MODES)
def test_a_chat_engine_says_its_system_prompt_and_no_empty_one(emulator, paths, model_class, mode):
    for prompts in ({"system_prompt": "Be brief."}, {}):
        chat(chat_engine(emulator, paths, mode, model_class, **prompts), "whole", "What?")
    systems = [
        [turn["content"] for turn in received.body["messages"] if turn["role"] == "system"]
        for received in emulator.requests
    ]
    assert systems == [["Be brief."], []]


@BOTH
@pytest.mark.parametrize("mode", MODES)
def test_a_chat_engine_without_a_system_prompt_leaves_the_models_own(emulator, paths, model_class, mode):
    llm = model_at(emulator, model_class=model_class, system_prompt="Be kind.")
    chat(chat_engine(emulator, paths, mode, llm=llm), "whole", "What?")
    first, *_ = emulator.requests[0].body["messages"]
    assert first == {"role": "system", "content": "Be kind."}


def test_an_empty_system_message_is_left_where_it_is(emulator):
    messages = [ChatMessage(role="system", content=None), ChatMessage(content="Hi")]
    model_at(emulator).chat(messages)
    assert [message.role.value for message in messages] == ["system", "user"]
    assert [turn["role"] for turn in emulator.requests[0].body["messages"]] == ["user"]

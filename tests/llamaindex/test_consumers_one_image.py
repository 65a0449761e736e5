"""Retrieved pictures where a provider takes one at a time, or no system message beside one: an error, or as was wished."""

import asyncio

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.evaluation.multi_modal import MultiModalFaithfulnessEvaluator
from llama_index.core.program import MultiModalLLMCompletionProgram
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.llamaindex import LlamaVision
from tests.emulator import completion
from tests.llamaindex.cats import TOM, Cat, model_at
from tests.llamaindex.engines import MODES, chat, chat_engine
from tests.llamaindex.gallery import (
    BOTH,
    COLORS,
    EVERY_WAY,
    FILES,
    WAYS,
    Shelf,
    colors_of,
    nodes_of,
    query,
    seen,
)

pytestmark = pytest.mark.usefixtures("own_loop")
PACKED = ("compact", "tree_summarize", "simple_summarize", "compact_accumulate")
ONE_BY_ONE = ("refine", "accumulate")
PACKED_AND_WAYS = [
    (mode, way) for mode in PACKED for way in WAYS if mode != "compact_accumulate" or "stream" not in way
]
TOO_MANY = r"3 images, and Cloudflare"
QUESTION = "What do you see?"


@pytest.fixture
def emulator(emulator_of):
    return emulator_of("cloudflare")


def engine_at(emulator, paths, mode="compact", way="whole", **options):
    return RetrieverQueryEngine.from_args(
        Shelf(nodes_of(paths)),
        llm=model_at(emulator, "cloudflare", **options),
        multimodal=True,
        response_mode=ResponseMode(mode),
        streaming="stream" in way,
    )


@BOTH
@pytest.mark.parametrize(("mode", "way"), PACKED_AND_WAYS)
def test_several_images_in_one_request_are_an_error_that_reaches_the_caller(
    emulator, paths, model_class, mode, way
):
    engine = engine_at(emulator, paths, mode, way, model_class=model_class)
    with pytest.raises(UnsupportedInputError, match=TOO_MANY):
        query(engine, way)
    assert emulator.requests == []


@pytest.mark.parametrize(("mode", "way"), PACKED_AND_WAYS)
def test_the_best_of_them_is_shown_where_that_is_wished(emulator, paths, mode, way):
    assert "I see 1 image(s)." in query(engine_at(emulator, paths, mode, way, image_policy="first"), way)
    assert seen(emulator) == [[0]]


@pytest.mark.parametrize(("mode", "way"), PACKED_AND_WAYS)
def test_all_are_shown_on_one_sheet_where_that_is_wished(emulator, paths, mode, way):
    assert "I see 1 image(s)." in query(engine_at(emulator, paths, mode, way, image_policy="grid"), way)
    (received,) = emulator.requests
    (sheet,) = received.images
    assert colors_of(sheet) == set(COLORS)
    assert "3 images" in received.content.decode()


@pytest.mark.parametrize("policy", ["error", "first", "grid"])
@pytest.mark.parametrize("mode", ONE_BY_ONE)
def test_modes_that_ask_once_for_each_image_show_them_all(emulator, paths, mode, policy):
    query(engine_at(emulator, paths, mode, image_policy=policy), "whole")
    assert sorted(seen(emulator)) == [[0], [1], [2]]


def cite(emulator, paths, **options):
    engine = CitationQueryEngine.from_args(
        None,
        retriever=Shelf(nodes_of(paths)),
        llm=model_at(emulator, "cloudflare", **options),
        multimodal=True,
    )
    return engine.query(QUESTION)


def evaluate(emulator, paths, **options):
    llm = model_at(emulator, "cloudflare", **options)
    judge = MultiModalFaithfulnessEvaluator(multi_modal_llm=llm)
    return judge.evaluate(response="Red.", contexts=["Words."], image_paths=list(map(str, paths)))


def run_program(emulator, paths, **options):
    if options["image_policy"] != "error":
        emulator.script(completion(TOM))
    program = MultiModalLLMCompletionProgram.from_defaults(
        output_cls=Cat,
        prompt_template_str="Who is it?",
        multi_modal_llm=model_at(emulator, "cloudflare", **options),
        image_documents=[ImageBlock(path=path) for path in paths],
    )
    return program()


def complete(emulator, paths, **options):
    return model_at(emulator, "cloudflare", **options).complete(QUESTION, image_documents=paths)


def talk(mode):
    def talked(emulator, paths, **options):
        llm = model_at(emulator, "cloudflare", **options)
        return chat(chat_engine(emulator, paths, mode, llm=llm), "whole", QUESTION)

    return talked


# LlamaIndex reads the stream in a thread too, which ends with the error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@EVERY_WAY
@pytest.mark.parametrize("mode", MODES)
def test_the_error_reaches_those_who_talk_in_any_way(emulator, paths, mode, way):
    engine = chat_engine(emulator, paths, mode, llm=model_at(emulator, "cloudflare"))
    with pytest.raises(UnsupportedInputError, match=TOO_MANY):
        chat(engine, way, QUESTION)
    assert emulator.requests == []


def send_agent(emulator, paths, **options):
    async def ran():
        blocks = [*(ImageBlock(path=path) for path in paths), TextBlock(text=QUESTION)]
        agent = FunctionAgent(tools=[], llm=model_at(emulator, "cloudflare", **options))
        return await agent.run(ChatMessage(role="user", blocks=blocks))

    return asyncio.run(ran())


CONSUMERS = {
    "completion": complete,
    "citations": cite,
    "evaluator": evaluate,
    "program": run_program,
    "agent": send_agent,
    **{f"chat engine, {mode.value}": talk(mode) for mode in MODES},
}
AGENTS = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@AGENTS
@pytest.mark.parametrize("policy", ["error", "first", "grid"])
@pytest.mark.parametrize("name", CONSUMERS)
def test_every_consumer_keeps_to_the_policy(emulator, paths, name, policy):
    if policy == "error":
        with pytest.raises(UnsupportedInputError, match=TOO_MANY):
            CONSUMERS[name](emulator, paths, image_policy=policy)
        assert emulator.requests == []
        return
    CONSUMERS[name](emulator, paths, image_policy=policy)
    (received,) = emulator.requests
    (image,) = received.images
    assert image in FILES if policy == "first" else colors_of(image) == set(COLORS)


@EVERY_WAY
@pytest.mark.parametrize("host", ["vllm", "groq"])
def test_a_system_message_goes_into_the_users_turn_where_a_image_forbids_it(emulator_of, paths, host, way):
    emulator = emulator_of("openai-compatible")
    llm = LlamaVision(
        provider=host,
        model="meta-llama/Llama-3.2-11B-Vision-Instruct",
        api_base=emulator.base_url,
        api_key=emulator.api_key,
        image_policy="grid",
    )
    engine = RetrieverQueryEngine.from_args(
        Shelf(nodes_of(paths)), llm=llm, multimodal=True, streaming="stream" in way
    )
    query(engine, way, QUESTION)
    (received,) = emulator.requests
    (turn,) = received.body["messages"]
    assert turn["role"] == "user"
    words = [block["text"] for block in turn["content"] if block["type"] == "text"]
    assert words[0].startswith("You are an expert Q&A system")
    assert QUESTION in words[-1]
    if host == "groq":
        assert colors_of(*received.images) == set(COLORS)
    else:
        assert seen(emulator) == [[0, 1, 2]]

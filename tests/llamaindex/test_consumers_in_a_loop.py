"""Inside a running event loop, as in a notebook: every consumer works, sync and async, and nothing has to patch asyncio."""

import asyncio
import gc

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.evaluation.multi_modal import MultiModalFaithfulnessEvaluator
from llama_index.core.program import MultiModalLLMCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.response_synthesizers import ResponseMode

from tests.emulator import completion
from tests.llamaindex.cats import TOM, Cat, called, model_at
from tests.llamaindex.engines import FINDS, MODES, chat_engine, engine_over, index_over
from tests.llamaindex.gallery import BOTH, Shelf, nodes_of, seen

ALL = [[0, 1, 2]]
PLAIN = "I see 3 image(s)."
PACKED = ("compact", "tree_summarize", "simple_summarize", "compact_accumulate")
ONE_BY_ONE = ("refine", "accumulate")


@pytest.fixture(autouse=True)
def unpatched():
    yield
    assert not hasattr(asyncio, "_nest_patched")


def message_with(paths, text="What do you see?"):
    return ChatMessage(blocks=[*(ImageBlock(path=path) for path in paths), TextBlock(text=text)])


@BOTH
async def test_all_eight_endpoints(emulator, paths, model_class):
    model, images = model_at(emulator, model_class=model_class), {"image_documents": paths}
    messages = [message_with(paths)]
    said = [
        model.chat(messages).message.content,
        list(model.stream_chat(messages))[-1].message.content,
        model.complete("What?", **images).text,
        list(model.stream_complete("What?", **images))[-1].text,
        (await model.achat(messages)).message.content,
        [item async for item in await model.astream_chat(messages)][-1].message.content,
        (await model.acomplete("What?", **images)).text,
        [item async for item in await model.astream_complete("What?", **images)][-1].text,
    ]
    assert said == [PLAIN] * 8
    assert seen(emulator) == ALL * 8


@BOTH
@pytest.mark.parametrize("mode", [*PACKED, *ONE_BY_ONE])
async def test_every_response_mode(emulator, paths, model_class, mode):
    engine = engine_over(
        nodes_of(paths), model_at(emulator, model_class=model_class), mode=ResponseMode(mode)
    )
    said = [str(engine.query("What?")), str(await engine.aquery("What?"))]
    assert all("I see " in text for text in said)
    once = ALL if mode in PACKED else [[0], [1], [2]]
    assert sorted(seen(emulator)) == sorted(once * 2)


@BOTH
@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "simple_summarize"])
async def test_streamed_answers(emulator, paths, model_class, mode):
    llm = model_at(emulator, model_class=model_class)
    engine = engine_over(nodes_of(paths), llm, ResponseMode(mode), streaming=True)
    assert "".join(engine.query("What?").response_gen) == PLAIN
    response = await engine.aquery("What?")
    assert "".join([piece async for piece in response.response_gen]) == PLAIN
    assert seen(emulator) == ALL * 2


# LlamaIndex runs the calls in a thread, in an event loop that it closes without shutting it down.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@BOTH
@pytest.mark.slow
async def test_a_sync_query_that_asks_several_times_at_once(emulator, paths, model_class):
    llm = model_at(emulator, model_class=model_class)
    engine = engine_over(nodes_of(paths), llm, ResponseMode.ACCUMULATE, use_async=True)
    for _ in range(3):
        engine.query("What?")
    assert sorted(seen(emulator)) == [[0]] * 3 + [[1]] * 3 + [[2]] * 3
    await llm.acomplete("Hi")  # which lets go of the pools of the loops that are gone
    del engine, llm
    gc.collect()


@BOTH
async def test_citations(emulator, paths, model_class):
    llm = model_at(emulator, model_class=model_class)
    engine = CitationQueryEngine.from_args(None, retriever=Shelf(nodes_of(paths)), llm=llm, multimodal=True)
    assert [str(engine.query("What?")), str(await engine.aquery("What?"))] == [PLAIN] * 2
    assert seen(emulator) == ALL * 2


@pytest.mark.filterwarnings("ignore:Call to deprecated class SimpleMultiModalQueryEngine")
@BOTH
async def test_the_multi_modal_index(emulator, paths, model_class):
    llm = model_at(emulator, model_class=model_class)
    engine = index_over(nodes_of(paths)).as_query_engine(llm=llm, **FINDS)
    assert [str(engine.query("What?")), str(await engine.aquery("What?"))] == [PLAIN] * 2
    assert [sorted(images) for images in seen(emulator)] == ALL * 2


@BOTH
@pytest.mark.parametrize("mode", MODES)
async def test_chat_engines(emulator, paths, model_class, mode):
    engine = chat_engine(emulator, paths, mode, model_class)
    said = [
        str(engine.chat("First?")),
        "".join(engine.stream_chat("Second?").response_gen),
        str(await engine.achat("Third?")),
        "".join([piece async for piece in (await engine.astream_chat("Fourth?")).async_response_gen()]),
    ]
    assert said == [PLAIN] * 4
    assert [sorted(images) for images in seen(emulator) if images] == ALL * 4


@BOTH
async def test_programs_and_structured_predictions(emulator, paths, model_class):
    emulator.script(*[completion(TOM)] * 2, *[called(TOM)] * 2)
    llm = model_at(emulator, model_class=model_class)
    program = MultiModalLLMCompletionProgram.from_defaults(
        output_cls=Cat, prompt_template_str="Who?", multi_modal_llm=llm
    )
    images = [ImageBlock(path=path) for path in paths]
    prompt = ChatPromptTemplate([message_with(paths, "Who?")])
    found = [
        program(image_documents=list(images)),
        await program.acall(image_documents=list(images)),
        llm.structured_predict(Cat, prompt),
        await llm.astructured_predict(Cat, prompt),
    ]
    assert found == [Cat(name="Tom", age=3)] * 4
    assert seen(emulator) == ALL * 4


@BOTH
async def test_evaluators(emulator, paths, model_class):
    judge = MultiModalFaithfulnessEvaluator(multi_modal_llm=model_at(emulator, model_class=model_class))
    case = {"response": "Red.", "contexts": ["Words."], "image_paths": [str(path) for path in paths]}
    assert [judge.evaluate(**case).feedback, (await judge.aevaluate(**case)).feedback] == [PLAIN] * 2
    assert seen(emulator) == ALL * 2


# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@BOTH
async def test_agents(emulator, paths, model_class):
    agent = FunctionAgent(tools=[], llm=model_at(emulator, model_class=model_class))
    assert str(await agent.run(message_with(paths))) == PLAIN
    assert seen(emulator) == ALL

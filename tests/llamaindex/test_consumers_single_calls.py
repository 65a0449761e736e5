"""Single calls show their pictures: completions, chats, programs, structured output, evaluators, and `Settings.llm`."""

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.evaluation.multi_modal import (
    MultiModalFaithfulnessEvaluator,
    MultiModalRelevancyEvaluator,
)
from llama_index.core.program import MultiModalLLMCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate, RichPromptTemplate
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine

from tests.emulator import completion
from tests.emulator.posting import data_url
from tests.llamaindex.cats import IN_EVERY_WAY, TOM, Cat, called, model_at, predict
from tests.llamaindex.gallery import BOTH, EVERY_WAY, NODES, Shelf, nodes_of, query, seen

pytestmark = pytest.mark.usefixtures("own_loop")
ALL = [[0, 1, 2]]
PLAIN = "I see 3 image(s)."
GIVEN = {
    **NODES,
    "ImageBlock": lambda paths, number: ImageBlock(path=paths[number]),
    "path": lambda paths, number: paths[number],
    "bytes": lambda paths, number: paths[number].read_bytes(),
}


def message_with(paths, text="What do you see?"):
    return ChatMessage(blocks=[*(ImageBlock(path=path) for path in paths), TextBlock(text=text)])


def last_of(model, kind, way, *arguments, **options):
    """Call one of the eight endpoints, and give the text of its last response."""

    async def called():
        response = await getattr(model, f"{way[:1]}{stream}{kind}")(*arguments, **options)
        return [item async for item in response][-1] if stream else response

    stream = "stream_" if "stream" in way else ""
    if way.startswith("a"):
        last = asyncio.run(called())
    else:
        response = getattr(model, f"{stream}{kind}")(*arguments, **options)
        last = list(response)[-1] if stream else response
    return last.text if kind == "complete" else last.message.content


@BOTH
@EVERY_WAY
@pytest.mark.parametrize("kind", GIVEN)
def test_a_completion_shows_its_image_documents(emulator, paths, model_class, way, kind):
    model = model_at(emulator, model_class=model_class)
    images = [GIVEN[kind](paths, number) for number in range(3)]
    assert last_of(model, "complete", way, "What do you see?", image_documents=images) == PLAIN
    assert seen(emulator) == ALL


@BOTH
@EVERY_WAY
def test_a_completion_needs_no_image_documents(emulator, model_class, way):
    model = model_at(emulator, model_class=model_class)
    for none in ({}, {"image_documents": None}, {"image_documents": []}):
        assert last_of(model, "complete", way, "Hi", **none) == "Hello! How can I help you today?"
    assert seen(emulator) == [[]] * 3


@BOTH
@EVERY_WAY
def test_a_chat_shows_the_images_of_all_its_turns(emulator, paths, model_class, way):
    messages = [
        message_with(paths[:1]),
        ChatMessage(role="assistant", content="One."),
        message_with(paths[1:]),
    ]
    assert last_of(model_at(emulator, model_class=model_class), "chat", way, messages) == "I see 2 image(s)."
    assert seen(emulator) == ALL


@BOTH
@pytest.mark.parametrize("way", ["whole", "awhole"])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("kind", ["ImageNode of a path", "ImageNode of base64", "ImageBlock"])
def test_a_program_shows_its_image_documents(emulator, paths, model_class, way, early, kind):
    emulator.script(completion(f"Here it is: {TOM}"))
    images = {"image_documents": [GIVEN[kind](paths, number) for number in range(3)]}
    program = MultiModalLLMCompletionProgram.from_defaults(
        output_cls=Cat,
        prompt_template_str="Describe the cat {name}.",
        multi_modal_llm=model_at(emulator, model_class=model_class),
        **(images if early else {}),
    )
    arguments = {"name": "Tom", **({} if early else images)}
    found = program(**arguments) if way == "whole" else asyncio.run(program.acall(**arguments))
    assert found == Cat(name="Tom", age=3)
    assert seen(emulator) == ALL
    assert "Describe the cat Tom." in emulator.requests[0].content.decode()


@BOTH
@pytest.mark.parametrize("way", ["whole", "awhole"])
@pytest.mark.parametrize("evaluator", [MultiModalFaithfulnessEvaluator, MultiModalRelevancyEvaluator])
def test_an_evaluator_shows_what_it_judges_by(emulator, paths, model_class, way, evaluator):
    emulator.script(completion("YES"), completion("NO"))
    judge = evaluator(multi_modal_llm=model_at(emulator, model_class=model_class))
    case = {
        "query": "Which colours?",
        "response": "Red, green and blue.",
        "contexts": ["Some words."],
        "image_paths": [str(path) for path in paths],
    }
    judged = [
        judge.evaluate(**case) if way == "whole" else asyncio.run(judge.aevaluate(**case)) for _ in range(2)
    ]
    assert [result.passing for result in judged] == [True, False]
    assert seen(emulator) == ALL * 2
    assert "Red, green and blue." in emulator.requests[0].content.decode()


@BOTH
def test_an_evaluator_passes_addresses_on(emulator, model_class):
    judge = MultiModalRelevancyEvaluator(multi_modal_llm=model_at(emulator, model_class=model_class))
    url = "https://example.com/cat.png"
    judge.evaluate(query="Who?", response="Tom", contexts=[""], image_urls=[url])
    assert emulator.requests[0].image_urls == [url]


def rich_template(paths):
    """Show images by data URLs: of paths, a template takes those under the working directory alone."""
    images = {f"picture_{number}": data_url(path.read_bytes()) for number, path in enumerate(paths)}
    lines = "\n".join(f"{{{{ {name} | image }}}}" for name in images)
    text = f'{{% chat role="user" %}}\n{lines}\nDescribe {{{{ name }}}}.\n{{% endchat %}}'
    return RichPromptTemplate(text), images


@BOTH
@IN_EVERY_WAY
@pytest.mark.parametrize("rich", [True, False])
def test_a_structured_prediction_shows_the_images_of_its_prompt(emulator, paths, model_class, way, rich):
    emulator.script(called(TOM))
    if rich:
        prompt, arguments = rich_template(paths)
    else:
        prompt, arguments = ChatPromptTemplate([message_with(paths, "Describe {name}.")]), {}
    found = predict(model_at(emulator, model_class=model_class), way, prompt=prompt, name="Tom", **arguments)
    assert found[-1] == Cat(name="Tom", age=3)
    assert seen(emulator) == ALL
    assert "Describe Tom." in emulator.requests[0].content.decode()


@BOTH
@EVERY_WAY
@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex's, in its streams
def test_a_structured_llm_shows_the_images_of_its_messages(emulator, paths, model_class, way):
    emulator.script(called(TOM))
    llm = model_at(emulator, model_class=model_class).as_structured_llm(Cat)
    last_of(llm, "chat", way, [message_with(paths)])
    assert seen(emulator) == ALL


@BOTH
@EVERY_WAY
def test_the_model_of_the_settings_is_the_one_that_is_asked(emulator, paths, model_class, way, monkeypatch):
    monkeypatch.setattr(Settings, "_llm", None)  # and None again after the test
    Settings.llm = model_at(emulator, model_class=model_class)
    assert type(Settings.llm) is model_class
    options = {"multimodal": True, "streaming": "stream" in way}
    for engine in (
        RetrieverQueryEngine.from_args(Shelf(nodes_of(paths)), **options),
        CitationQueryEngine.from_args(None, retriever=Shelf(nodes_of(paths)), llm=Settings.llm, **options),
    ):
        assert query(engine, way) == PLAIN
    assert seen(emulator) == ALL * 2

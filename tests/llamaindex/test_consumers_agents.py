"""Agents see the images of their user, of their memory and of their tools."""

import asyncio
from inspect import isfunction

import pytest
from llama_index.core import Settings
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool, QueryEngineTool

from tests.emulator import completion
from tests.llamaindex.cats import model_at
from tests.llamaindex.engines import engine_over
from tests.llamaindex.gallery import BOTH, FILES, nodes_of, seen

# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
pytestmark = [
    pytest.mark.usefixtures("own_loop"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
STREAMING = pytest.mark.parametrize("streaming", [True, False])
AGENTS = pytest.mark.parametrize("kind", ["FunctionAgent", "AgentWorkflow", "ReActAgent"])
ANSWER = "It is red."
CITY = {"city": "Zürich"}


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Sunny in {city}"


def look_closer() -> list:
    """Take images."""
    return [TextBlock(text="Look:"), *(ImageBlock(image=file) for file in FILES[1:])]


def look_only() -> ImageBlock:
    """Take an image."""
    return ImageBlock(image=FILES[2])


def message_of(*paths, text="What is it?"):
    return ChatMessage(role="user", blocks=[*(ImageBlock(path=path) for path in paths), TextBlock(text=text)])


def agent_of(kind, llm, tools=(get_weather,), **options):
    tools = [FunctionTool.from_defaults(each) if isfunction(each) else each for each in tools]
    made = (ReActAgent if kind == "ReActAgent" else FunctionAgent)(
        name="looker", description="Looks.", tools=tools, llm=llm, **options
    )
    return AgentWorkflow(agents=[made]) if kind == "AgentWorkflow" else made


def calls(kind, name, arguments):
    if kind == "ReActAgent":
        return completion(
            f"Thought: I need a tool.\nAction: {name}\nAction Input: {arguments}".replace("'", '"')
        )
    return completion(calls=[(name, arguments)])


def answers(kind, text=ANSWER):
    return completion(f"Thought: I can answer.\nAnswer: {text}" if kind == "ReActAgent" else text)


def run(agent, *messages, **options):
    """Let an agent answer one message after the other; give its answers and all that it streamed."""

    async def ran():
        said, streamed = [], []
        for message in messages:
            handler = agent.run(message, **options)
            streamed += [event async for event in handler.stream_events() if isinstance(event, AgentStream)]
            said.append(str(await handler))
        return said, streamed

    return asyncio.run(ran())


@BOTH
@STREAMING
@AGENTS
def test_the_users_images_are_shown_in_every_step(emulator, paths, model_class, kind, streaming):
    emulator.script(calls(kind, "get_weather", CITY), answers(kind))
    agent = agent_of(kind, model_at(emulator, model_class=model_class), streaming=streaming)
    (answer,), _ = run(agent, message_of(*paths))
    assert answer == ANSWER
    assert seen(emulator) == [[0, 1, 2]] * 2
    assert "Sunny in Z" in emulator.requests[1].content.decode()
    assert {received.streamed for received in emulator.requests} == {streaming}


@BOTH
@STREAMING
@AGENTS
def test_images_of_earlier_turns_are_shown_again(emulator, paths, model_class, kind, streaming):
    emulator.script(*[answers(kind)] * 3)
    agent = agent_of(kind, model_at(emulator, model_class=model_class), streaming=streaming)
    messages = [message_of(path) for path in paths]
    said, _ = run(agent, *messages, memory=ChatMemoryBuffer.from_defaults())
    assert said == [ANSWER] * 3
    assert seen(emulator) == [[0], [0, 1], [0, 1, 2]]


@BOTH
@STREAMING
@AGENTS
def test_images_of_a_history_are_shown(emulator, paths, model_class, kind, streaming):
    emulator.script(answers(kind))
    agent = agent_of(kind, model_at(emulator, model_class=model_class), streaming=streaming)
    history = [message_of(*paths[:2]), ChatMessage(role="assistant", content="Two.")]
    run(agent, message_of(paths[2]), chat_history=history)
    assert seen(emulator) == [[0, 1, 2]]
    assert [len(message.blocks) for message in history] == [3, 1]


@BOTH
@STREAMING
@pytest.mark.parametrize("kind", ["FunctionAgent", "AgentWorkflow"])
@pytest.mark.parametrize(("tool", "shown"), [(look_closer, [1, 2]), (look_only, [2])])
def test_images_that_a_tool_gives_are_shown(emulator, paths, model_class, kind, streaming, tool, shown):
    emulator.script(calls(kind, tool.__name__, {}), answers(kind))
    agent = agent_of(kind, model_at(emulator, model_class=model_class), [tool], streaming=streaming)
    (answer,), _ = run(agent, message_of(paths[0]))
    assert answer == ANSWER
    assert seen(emulator) == [[0], [0, *shown]]


@STREAMING
@AGENTS
def test_a_query_engine_as_a_tool_shows_what_it_finds(emulator, paths, kind, streaming):
    llm = model_at(emulator)
    tool = QueryEngineTool.from_defaults(
        engine_over(nodes_of(paths), llm), name="find", description="Finds pictures."
    )
    emulator.script(calls(kind, "find", {"input": "red"}), completion("The first is red."), answers(kind))
    (answer,), _ = run(agent_of(kind, llm, [tool], streaming=streaming), message_of(paths[0]))
    assert answer == ANSWER
    assert seen(emulator) == [[0], [0, 1, 2], [0]]
    assert "The first is red." in emulator.requests[2].content.decode()


@AGENTS
def test_a_stream_of_an_agent_tells_what_is_new_and_what_was_used(emulator, paths, kind):
    emulator.script(answers(kind))
    _, streamed = run(agent_of(kind, model_at(emulator)), message_of(paths[0]))
    assert ANSWER in "".join(event.delta for event in streamed)
    assert streamed[-1].response.endswith(ANSWER)
    assert streamed[-1].raw["usage"]["completion_tokens"] > 0


@BOTH
@AGENTS
def test_agents_ask_the_model_of_the_settings(emulator, paths, model_class, kind, monkeypatch):
    monkeypatch.setattr(Settings, "_llm", None)  # and None again after the test
    Settings.llm = model_at(emulator, model_class=model_class)
    emulator.script(answers(kind))
    (answer,), _ = run(agent_of(kind, Settings.llm), message_of(*paths))
    assert answer == ANSWER
    assert seen(emulator) == [[0, 1, 2]]

"""Callbacks hear of each chunk once, however the model is asked."""

import asyncio

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langgraph.graph import START, MessagesState, StateGraph

from tests.emulator import completion
from tests.langchain.weather import Weather, model_at

pytestmark = pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version

CALL = completion("Let me look.", calls=[("Weather", {"city": "Paris", "days": 3})])


class Listener(BaseCallbackHandler):
    """Keeps what it is told."""

    def __init__(self):
        self.tokens, self.chunks, self.starts, self.ends = [], [], 0, []

    def on_chat_model_start(self, *_, **__):
        self.starts += 1

    def on_llm_new_token(self, token, *, chunk=None, **_):
        self.tokens.append(token)
        self.chunks.append(chunk)

    def on_llm_end(self, response, **_):
        self.ends.append(response)


class AsyncListener(AsyncCallbackHandler):
    """The same in coroutines, over a listener that keeps it."""

    def __init__(self, kept):
        self._kept = kept
        self.ends = kept.ends

    async def on_chat_model_start(self, *_, **__):
        self._kept.on_chat_model_start()

    async def on_llm_new_token(self, token, *, chunk=None, **_):
        self._kept.on_llm_new_token(token, chunk=chunk)

    async def on_llm_end(self, response, **_):
        self._kept.on_llm_end(response)


def graph_of(model):
    def say(state: MessagesState):
        return {"messages": [model.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node(say).add_edge(START, "say").compile()


async def read(stream):
    return [one async for one in stream]


async def read_events(model, config):
    await read(await model.astream_events("Hi", config, version="v3"))
    (listener,) = config["callbacks"]
    async with asyncio.timeout(10):  # LangChain tells callbacks of the end after the reader has it
        while not listener.ends:  # noqa: ASYNC110 - what tells of it is what is waited for
            await asyncio.sleep(0.001)


ASYNC_STYLES = {
    "astream": lambda model, config: read(model.astream("Hi", config)),
    "ainvoke, streaming": lambda model, config: model.model_copy(update={"streaming": True}).ainvoke(
        "Hi", config
    ),
    "ainvoke, told to stream": lambda model, config: model.ainvoke("Hi", config, stream=True),
    "abatch, streaming": lambda model, config: model.model_copy(update={"streaming": True}).abatch(
        ["Hi"], config
    ),
    "astream of a chain": lambda model, config: read((model | StrOutputParser()).astream("Hi", config)),
    "astream_events v2": lambda model, config: read(model.astream_events("Hi", config, version="v2")),
    "astream_events v3": read_events,
}
STYLES = {
    "stream": lambda model, config: list(model.stream("Hi", config)),
    "invoke, streaming": lambda model, config: model.model_copy(update={"streaming": True}).invoke(
        "Hi", config
    ),
    "invoke, told to stream": lambda model, config: model.invoke("Hi", config, stream=True),
    "batch, streaming": lambda model, config: model.model_copy(update={"streaming": True}).batch(
        ["Hi"], config
    ),
    "stream of a chain": lambda model, config: list((model | StrOutputParser()).stream("Hi", config)),
    "stream_events v3": lambda model, config: list(model.stream_events("Hi", config, version="v3")),
    "a graph's messages": lambda model, config: list(
        graph_of(model).stream({"messages": "Hi"}, config, stream_mode="messages")
    ),
    **{
        name: lambda model, config, ask=ask: asyncio.run(ask(model, config))
        for name, ask in ASYNC_STYLES.items()
    },
}
every_style = pytest.mark.parametrize("style", STYLES)


def chunks_on_the_wire(emulator, reply):
    """What `stream` gives, which every callback has to hear."""
    if reply is not None:
        emulator.script(reply, reply)
    return list(model_at(emulator).stream("Hi"))


@every_style
@pytest.mark.parametrize("reply", [None, CALL], ids=["words", "words and a call"])
def test_each_chunk_is_told_once(emulator, style, reply):
    expected = chunks_on_the_wire(emulator, reply)
    listener = Listener()
    STYLES[style](model_at(emulator), {"callbacks": [listener]})
    assert listener.tokens == [chunk.text for chunk in expected]
    pieces = [chunk.message.tool_call_chunks for chunk in listener.chunks]
    assert pieces == [chunk.tool_call_chunks for chunk in expected]
    assert (listener.starts, len(listener.ends)) == (1, 1)
    assert len(emulator.requests) == 2


@pytest.mark.parametrize("style", ASYNC_STYLES)
def test_coroutines_hear_the_same(emulator, style):
    expected = chunks_on_the_wire(emulator, None)
    listener = Listener()
    STYLES[style](model_at(emulator), {"callbacks": [AsyncListener(listener)]})
    assert listener.tokens == [chunk.text for chunk in expected]
    assert (listener.starts, len(listener.ends)) == (1, 1)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_whole_answer_is_told_at_its_end_alone(emulator, way):
    listener = Listener()
    model, config = model_at(emulator), {"callbacks": [listener]}
    answer = model.invoke("Hi", config) if way == "invoke" else asyncio.run(model.ainvoke("Hi", config))
    assert listener.tokens == []
    assert listener.ends[0].generations[0][0].text == answer.text
    assert not emulator.requests[0].streamed


@pytest.mark.parametrize(
    "options", [{"disable_streaming": True}, {"streaming": False}, {"disable_streaming": "tool_calling"}]
)
def test_streams_can_be_switched_off(emulator, options):
    model = model_at(emulator, **options).bind_tools([Weather])
    (chunk,) = model.stream("The weather in Paris?")
    assert chunk.tool_calls[0]["name"] == "Weather"
    assert not emulator.requests[0].streamed


def test_the_end_of_a_stream_has_the_whole_answer(emulator):
    emulator.script(CALL)
    listener = Listener()
    list(model_at(emulator).stream("Hi", {"callbacks": [listener]}))
    (generation,) = listener.ends[0].generations[0]
    assert generation.text == "Let me look."
    assert [call["args"] for call in generation.message.tool_calls] == [{"city": "Paris", "days": 3}]
    assert generation.message.usage_metadata["total_tokens"] == CALL["usage"]["total_tokens"]

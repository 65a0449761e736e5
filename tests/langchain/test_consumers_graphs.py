"""LangGraph shows what the model says as it comes, and as values, and remembers it."""

import asyncio

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from tests.emulator import completion
from tests.langchain.output_styles import added_up
from tests.langchain.weather import model_at

GREETING = "Hello! How can I help you today?"


def echo(received):
    return completion(f"You said: {received.body['messages'][-1]['content']}")


def graph_of(model, **options):
    def say(state: MessagesState):
        return {"messages": [model.invoke(state["messages"])]}

    async def say_async(state: MessagesState):
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("say", RunnableLambda(say, say_async))
    return graph.add_edge(START, "say").compile(**options)


def run(graph, way, given, **options):
    async def collected():
        return [item async for item in graph.astream(given, **options)]

    return list(graph.stream(given, **options)) if way == "stream" else asyncio.run(collected())


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_graph_shows_messages_as_they_come(emulator, way):
    items = run(graph_of(model_at(emulator)), way, {"messages": "Hi"}, stream_mode="messages")
    chunks = [chunk for chunk, _ in items]
    assert [chunk.text for chunk in chunks[:3]] == ["Hello!", " How", " can"]
    assert {metadata["langgraph_node"] for _, metadata in items} == {"say"}
    assert len({chunk.id for chunk in chunks}) == 1
    total = added_up(chunks)
    assert total.text == GREETING
    assert total.response_metadata["finish_reason"] == "stop"
    assert total.usage_metadata["output_tokens"] == 7
    assert [received.streamed for received in emulator.requests] == [True]


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_graph_shows_values(emulator, way):
    items = run(graph_of(model_at(emulator)), way, {"messages": "Hi"}, stream_mode="values")
    assert [[message.text for message in item["messages"]] for item in items] == [["Hi"], ["Hi", GREETING]]
    assert [received.streamed for received in emulator.requests] == [False]


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_graph_shows_both_and_each_message_once(emulator, way):
    items = run(graph_of(model_at(emulator)), way, {"messages": "Hi"}, stream_mode=["messages", "values"])
    shown = added_up(item[0] for mode, item in items if mode == "messages")
    (*_, last) = [item for mode, item in items if mode == "values"]
    assert shown.text == last["messages"][-1].text == GREETING
    assert shown.id == last["messages"][-1].id
    assert len(emulator.requests) == 1


def test_a_graph_remembers_a_conversation(emulator):
    emulator.always(echo)
    graph = graph_of(model_at(emulator), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    for question in ("One", "Two"):
        graph.invoke({"messages": question}, thread)
    told = [message["content"] for message in emulator.requests[-1].body["messages"]]
    assert told == ["One", "You said: One", "Two"]
    saved = graph.get_state(thread).values["messages"]
    assert [message.text for message in saved][-1] == "You said: Two"
    assert saved[-1].usage_metadata["output_tokens"] == 3


@pytest.mark.filterwarnings("ignore:.*(beta|experimental)")  # LangChain and LangGraph say so of their own
@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_graph_shows_events_of_the_third_version(emulator, way):
    graph = graph_of(model_at(emulator))

    async def collected():
        return [event async for event in await graph.astream_events({"messages": "Hi"}, version="v3")]

    events = (
        list(graph.stream_events({"messages": "Hi"}, version="v3"))
        if way == "stream"
        else asyncio.run(collected())
    )
    told = [event["params"]["data"] for event in events]
    of_model = [data[0] for event, data in zip(events, told, strict=True) if event["method"] == "messages"]
    deltas = [event["delta"]["text"] for event in of_model if event["event"] == "content-block-delta"]
    assert deltas == ["Hello!", " How", " can", " I", " help", " you", " today?"]
    assert of_model[-1]["usage"]["output_tokens"] == 7
    assert told[-1]["messages"][-1].text == GREETING
    assert [received.streamed for received in emulator.requests] == [True]

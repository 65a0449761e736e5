"""Threads that are stored between turns, in LangGraph's SQLite and LlamaIndex's Context, go on as they were."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    CitationBlock,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context, JsonPickleSerializer

from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import completion, event_stream, json_answer
from tests.quirks.talk import either

DATA = {"type": "file", "name": "Zürich.txt", "mime_type": "text/plain"}
CONVERSATIONS = ("surrogate halves", "foreign history", "data of a tool")
LANGCHAIN_NOTES = [
    {"type": "thinking", "thinking": "hm", "signature": "AAAA"},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "sun"}},
    {"type": "text", "text": "It is sunny."},
]
LLAMAINDEX_NOTES = [
    ThinkingBlock(content="hm"),
    CitationBlock(cited_content=TextBlock(text="sun"), source="a.b", title="A", additional_location_info={}),
    TextBlock(text="It is sunny."),
]


def half_letters():
    """A text and a tool call that each hold one half of a surrogate pair."""
    function = {"name": "look", "arguments": '{"place": "caf\\u00e9 \\ud83d"}'}
    call = {"id": "c1", "type": "function", "function": function}
    message = {"content": "I look \ud83d", "tool_calls": [call]}
    chunks = [
        {
            "choices": [
                {"index": 0, "delta": {"content": "I look \ud83d", "tool_calls": [{"index": 0, **call}]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    ]
    return either(
        json_answer({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}),
        event_stream(*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), "[DONE]"),
    )


def script(emulator, conversation):
    """Two turns: a call and what it leads to, and an answer to the question after it."""
    call = completion(calls=[("look", {"place": "café"})])
    first = half_letters() if conversation == "surrogate halves" else call
    emulator.script(first, completion("Seen."), completion("Sun."))


def check_what_was_sent(emulator, conversation, places):
    """The third request holds all of the second: what was stored came back as it was."""
    _, second, third = ([dict(turn) for turn in request.body["messages"]] for request in emulator.requests)
    assert third[: len(second)] == second
    assert [(turn["role"], turn["content"]) for turn in third[len(second) :]] == [
        ("assistant", "Seen."),
        ("user", "And tomorrow?"),
    ]
    json.dumps(third, ensure_ascii=False).encode()
    *_, calling, result = second
    if conversation == "surrogate halves":
        assert places == ["café \ufffd"]
        assert calling["content"] == "I look \ufffd"
    elif conversation == "foreign history":
        assert {"role": "assistant", "content": "It is sunny."} in third
        assert "hm" not in json.dumps(third)
    else:
        assert "Zürich.txt" in result["content"]
        assert "text/plain" in result["content"]


@asynccontextmanager
async def langchain_agent(emulator, conversation, path, places, *, is_async):
    """An agent of a new process, as it were: all that it has of the thread is in the file."""

    @tool
    def look(place: str):
        """Look at a place."""
        places.append(place)
        return [DATA] if conversation == "data of a tool" else "Sun."

    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)
    if is_async:
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            yield create_agent(model, [look], checkpointer=saver)
    else:
        with SqliteSaver.from_conn_string(str(path)) as saver:
            yield create_agent(model, [look], checkpointer=saver)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", pytest.param("astream", marks=pytest.mark.slow)])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_thread_in_langgraphs_sqlite_goes_on(emulator, tmp_path, conversation, way):
    script(emulator, conversation)
    began = [HumanMessage("Hi."), AIMessage(LANGCHAIN_NOTES)] if conversation == "foreign history" else []
    places = []

    async def turn(*said):
        config, given = {"configurable": {"thread_id": "1"}}, {"messages": list(said)}
        path, is_async = tmp_path / "threads.sqlite", way != "invoke"
        async with langchain_agent(emulator, conversation, path, places, is_async=is_async) as agent:
            if way == "invoke":
                return agent.invoke(given, config)["messages"][-1].text
            if way == "ainvoke":
                return (await agent.ainvoke(given, config))["messages"][-1].text
            states = [state async for state in agent.astream(given, config, stream_mode="values")]
            return states[-1]["messages"][-1].text

    assert asyncio.run(turn(*began, HumanMessage("The weather?"))) == "Seen."
    assert asyncio.run(turn(HumanMessage("And tomorrow?"))) == "Sun."
    check_what_was_sent(emulator, conversation, places)


# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("streaming", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_thread_in_llamaindexs_context_goes_on(emulator, conversation, streaming):
    script(emulator, conversation)
    began = (
        [ChatMessage("Hi."), ChatMessage(role="assistant", blocks=LLAMAINDEX_NOTES)]
        if conversation == "foreign history"
        else None
    )
    places = []

    def look(place: str):
        """Look at a place."""
        places.append(place)
        data = CitableBlock(title="Zürich.txt", source="text/plain", content=[TextBlock(text="Sun.")])
        return data if conversation == "data of a tool" else "Sun."

    def agent():
        model = LlamaVision(provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key)
        return FunctionAgent(tools=[FunctionTool.from_defaults(look)], llm=model, streaming=streaming)

    async def turn(said, stored=None, **given):
        working = agent()
        context = (
            Context.from_dict(working, json.loads(stored), JsonPickleSerializer())
            if stored
            else Context(working)
        )
        text = str(await working.run(said, ctx=context, **given))
        # As JSON alone LlamaIndex leaves out an agent's memory, and says so.
        return text, json.dumps(context.to_dict(JsonPickleSerializer()))

    text, stored = asyncio.run(turn("The weather?", chat_history=began))
    assert text == "Seen."
    assert asyncio.run(turn("And tomorrow?", stored))[0] == "Sun."
    check_what_was_sent(emulator, conversation, places)

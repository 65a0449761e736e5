"""What a tool returns as data reaches the model as JSON, and ends no agent."""

import asyncio
import json

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from llama_vision.core.errors import UnsupportedInputError
from tests.emulator import completion
from tests.langchain.output_styles import every_style, form_of, message
from tests.langchain.weather import model_at

pytestmark = pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version

DATA = {
    "files": {"type": "file", "name": "Zürich.txt", "mime_type": "text/plain"},
    "JSON": {"type": "json", "json": {"a": [1, None]}},
    "a document": {"type": "document", "source": {"type": "text", "data": "sun"}},
    "a finding": {"type": "search_result", "title": "A", "source": "a.b", "content": [{"type": "text", "text": "sun"}]},
    "rows with a type": {"type": "text", "title": "A"},
    "images by name": {"type": "image", "name": "a.png"},
    "reasoning": {"type": "thinking", "thinking": "hm"},
    "v1": {"type": "non_standard", "value": {"type": "json", "json": 1}},
}  # fmt: skip
FILES = {
    "v1": {"type": "file", "base64": "UEsDBA==", "mime_type": "application/zip"},
    "v0": {"type": "audio", "source_type": "base64", "data": "AAAA", "mime_type": "audio/wav"},
    "Anthropic": {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/zip", "data": "UEsDBA=="},
    },
    "OpenAI": {"type": "file", "file": {"file_data": "data:application/zip;base64,UEsDBA=="}},
}


def thread(content):
    call = {"id": "c1", "name": "look", "args": {}}
    return [HumanMessage("Look."), AIMessage("", tool_calls=[call]), ToolMessage(content, tool_call_id="c1")]


@every_style
def test_data_of_a_tool_is_sent_as_json(emulator, style):
    assert message(model_at(emulator, **form_of(style)), style, thread(["Here:", *DATA.values()])).text
    (result,) = [turn for turn in emulator.requests[0].body["messages"] if turn["role"] == "tool"]
    said, *lines = result["content"].split("\n")
    assert said == "Here:"
    assert [json.loads(line) for line in lines] == list(DATA.values())
    assert "Zürich" in lines[0]


@every_style
@pytest.mark.parametrize(
    ("provider", "content"), [("cloudflare-openai", ""), ("deepinfra", None), ("openai-compatible", None)]
)
def test_a_turn_of_calls_alone_is_taken_by_every_host(emulator_of, provider, content, style):
    emulator = emulator_of(provider)
    assert message(model_at(emulator, provider, **form_of(style)), style, thread("Sun.")).text
    assert emulator.requests[0].body["messages"][1]["content"] == content


@pytest.mark.parametrize("block", FILES.values(), ids=FILES)
def test_a_file_that_a_tool_returns_is_refused_and_not_sent_as_text(emulator, block):
    with pytest.raises(UnsupportedInputError, match=f"Message 2 .*'{block['type']}'"):
        model_at(emulator).invoke(thread([block]))
    assert emulator.requests == []


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("block", DATA.values(), ids=DATA)
def test_an_agent_goes_on_after_a_tool_returned_data(emulator, block, way):
    @tool
    def look():
        """Look around."""
        return [block]

    emulator.script(completion(calls=[("look", "{}")]), completion("Seen."))
    agent = create_agent(model_at(emulator), [look])
    asked = {"messages": "Look."}
    state = agent.invoke(asked) if way == "invoke" else asyncio.run(agent.ainvoke(asked))
    assert state["messages"][-1].text == "Seen."
    sent = emulator.requests[1].body["messages"][-1]
    assert json.loads(sent["content"]) in (block, [block])  # a list, where LangChain wrote the JSON

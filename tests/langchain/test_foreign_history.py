"""A thread that another company's model began goes on with ours: its notes are left out, and nothing that a user wrote."""

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver

from llama_vision.core.errors import ImageError, UnsupportedInputError
from tests.langchain.output_styles import every_style, form_of, message
from tests.langchain.weather import model_at

pytestmark = pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version

TEXT = {
    "type": "text",
    "text": "It is sunny.",
    "annotations": [{"type": "url_citation", "url": "https://a.b"}],
}
NOTES = {
    "OpenAI's call": {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", "id": "fc_1"},
    "OpenAI's search": {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    "OpenAI's code": {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "outputs": []},
    "Anthropic's hidden reasoning": {"type": "redacted_thinking", "data": "AAAA"},
    "Anthropic's reasoning": {"type": "thinking", "thinking": "hm", "signature": "AAAA"},
    "Anthropic's search": {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "sun"}},
    "Anthropic's finding": {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "https://a.b"}]},
    "Bedrock's reasoning": {"type": "reasoning_content", "reasoning_content": {"text": "hm", "signature": "A"}},
    "Bedrock's cache point": {"cachePoint": {"type": "default"}},
    "Google's code": {"type": "executable_code", "executable_code": "1", "language": "PYTHON"},
    "Google's result": {"type": "code_execution_result", "code_execution_result": "1", "outcome": 1},
    "v1 search": {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}},
    "v1 finding": {"type": "server_tool_result", "tool_call_id": "s", "status": "success", "output": "sun"},
    "v1 of another kind": {"type": "non_standard", "value": {"type": "mcp_list_tools", "tools": []}},
    "v1 of no kind": {"type": "non_standard", "value": None},
    "a text without text": {"type": "text"},
}  # fmt: skip


def thread(*blocks):
    return [HumanMessage("The weather?"), AIMessage([TEXT, *blocks]), HumanMessage("And tomorrow?")]


@pytest.mark.parametrize("note", NOTES)
def test_what_another_model_noted_is_not_sent(emulator, note):
    assert model_at(emulator).invoke(thread(NOTES[note])).text
    assert [(turn["role"], turn["content"]) for turn in emulator.requests[0].body["messages"]] == [
        ("user", "The weather?"),
        ("assistant", "It is sunny."),
        ("user", "And tomorrow?"),
    ]


@every_style
def test_a_thread_of_all_notes_goes_on_in_every_style(emulator, style):
    assert message(model_at(emulator, **form_of(style)), style, thread(*NOTES.values())).text
    assert emulator.requests[0].body["messages"][1] == {"role": "assistant", "content": "It is sunny."}


@pytest.mark.parametrize(
    "block",
    [{"type": "refusal", "refusal": "No."}, {"type": "output_text", "text": "No."}],
    ids=["refusal", "text"],
)
def test_what_the_user_read_of_another_model_is_sent(emulator, block):
    wrapped = {"type": "non_standard", "value": block}
    model_at(emulator).invoke(thread(block, wrapped))
    assert emulator.requests[0].body["messages"][1]["content"] == "It is sunny.\nNo.\nNo."


MARKS = {"Bedrock's cache point", "v1 of no kind"}


@pytest.mark.parametrize("kind", [HumanMessage, SystemMessage])
@pytest.mark.parametrize("note", [note for note in NOTES if note not in MARKS])
def test_the_same_from_a_user_is_refused_by_name(emulator, kind, note):
    block = NOTES[note]
    culprit = block["value"]["type"] if block["type"] == "non_standard" else block["type"]
    with pytest.raises(UnsupportedInputError, match=f"Message 0 .*'{culprit}'"):
        model_at(emulator).invoke([kind([{"type": "text", "text": "See:"}, block]), HumanMessage("What?")])
    assert emulator.requests == []


def test_a_cache_point_is_no_content(emulator):
    model_at(emulator).invoke([HumanMessage(["Hi", NOTES["Bedrock's cache point"]])])
    assert emulator.requests[0].body["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "block",
    [{"type": "image", "file_id": "f-1"}, {"type": "image", "base64": "AAAA", "mime_type": "image/png"}],
)
def test_an_image_of_another_model_is_not_left_out(emulator, block):
    with pytest.raises((UnsupportedInputError, ImageError), match="Message 1"):
        model_at(emulator).invoke(thread(block))
    assert emulator.requests == []


class FailingModel(GenericFakeChatModel):
    """Another company's model on the day it is down."""

    def _generate(self, *_, **__):
        raise ConnectionError("It is down.")


def test_an_agent_falls_back_to_us_in_the_middle_of_a_stored_thread(emulator):
    fallback = ModelFallbackMiddleware(model_at(emulator))
    agent = create_agent(FailingModel(messages=iter(())), middleware=[fallback], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for _ in range(2):
        state = agent.invoke({"messages": thread(*NOTES.values())}, config)
    assert state["messages"][-1].text
    assert len(emulator.requests) == 2
    assert [
        turn["content"] for turn in emulator.requests[1].body["messages"] if turn["role"] == "assistant"
    ] == [
        "It is sunny.",
        "Hello! How can I help you today?",
        "It is sunny.",
    ]

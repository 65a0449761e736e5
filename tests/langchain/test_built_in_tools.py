"""Another company's built-in tools are refused by name, and never offered as if they were functions."""

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.tools import Tool

from llama_vision.core.errors import UnsupportedInputError
from tests.langchain.output_styles import WAYS, message
from tests.langchain.weather import Weather, model_at

BUILT_IN = {
    "web_search": {"type": "web_search"},
    "web_search_preview_2025_03_11": {"type": "web_search_preview_2025_03_11"},
    "web_search_20250305": {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    "bash_20250124": {"type": "bash_20250124", "name": "bash"},
    "mcp": {"type": "mcp", "server_label": "a", "server_url": "https://a.b"},
    "custom": {"type": "custom", "name": "write_sql", "format": {"type": "text"}},
    "google_search": {"google_search": {}},
    "function": {"type": "function"},
}
SCHEMA = Weather.model_json_schema()
FUNCTIONS = {
    "OpenAI": {"type": "function", "function": {"name": "Weather", "parameters": SCHEMA}},
    "OpenAI's Responses": {"type": "function", "name": "Weather", "parameters": SCHEMA},
    "Anthropic": {"name": "Weather", "input_schema": SCHEMA},
    "Anthropic, with its type": {"type": "custom", "name": "Weather", "input_schema": SCHEMA},
    "Bedrock": {"toolSpec": {"name": "Weather", "description": "", "inputSchema": {"json": SCHEMA}}},
    "JSON schema": SCHEMA,
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_tool_is_refused_by_name_where_it_is_bound(emulator, name):
    with pytest.raises(UnsupportedInputError, match=f"The tool '{name}'") as caught:
        model_at(emulator).bind_tools([Weather, BUILT_IN[name]])
    assert isinstance(caught.value, ModelInvalidRequestError)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_tool_is_refused_by_name_in_a_call(emulator, name, way):
    with pytest.raises(UnsupportedInputError, match=f"The tool '{name}'"):
        message(model_at(emulator), ("v0", way), tools=[BUILT_IN[name]])
    assert emulator.requests == []


def test_langchains_custom_tool_is_refused_by_name(emulator):
    tool = Tool("write_sql", str, "Write SQL.", metadata={"type": "custom_tool"})
    with pytest.raises(UnsupportedInputError, match="The tool 'custom'"):
        model_at(emulator).bind_tools([tool]).invoke("Hi")
    assert emulator.requests == []


def test_an_agent_with_a_built_in_tool_says_which(emulator):
    with pytest.raises(UnsupportedInputError, match="The tool 'web_search_20250305'"):
        create_agent(model_at(emulator), [BUILT_IN["web_search_20250305"]]).invoke({"messages": "Hi"})


@pytest.mark.parametrize("tool", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_in_any_companys_form_is_offered(emulator, tool):
    model_at(emulator).bind_tools([tool]).invoke("Hi")
    (offered,) = emulator.requests[0].body["tools"]
    function = offered.get("function", offered)
    assert function["name"] == "Weather"
    assert function["parameters"]["required"] == ["city", "days"]

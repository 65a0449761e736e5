"""Options as the frameworks spell them, and the request they make."""

import pytest

from llama_vision.core.call_options import (
    CALL_OPTIONS,
    build_request,
    parse_response_format,
    parse_tool,
    parse_tool_choice,
)
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice

MESSAGES = [Message("user", (Text("Hello"),))]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def test_no_options_make_a_plain_request():
    assert build_request("m", MESSAGES, {}) == ChatRequest("m", tuple(MESSAGES))


def test_none_counts_as_not_set():
    assert build_request("m", MESSAGES, dict.fromkeys(CALL_OPTIONS)) == ChatRequest("m", tuple(MESSAGES))


def test_every_option_arrives():
    options = {
        "max_tokens": 5,
        "temperature": 0.0,
        "seed": 0,
        "tools": [{"type": "function", "function": {"name": "weather"}}],
        "tool_choice": "any",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "stop": ["a", "b"],
        "stream_usage": False,
        "extra_body": {"service_tier": "flex"},
        "text_tool_calls": False,
    }
    assert build_request("m", MESSAGES, options) == ChatRequest(
        "m",
        tuple(MESSAGES),
        tools=(Tool("weather"),),
        tool_choice=ToolChoice("required"),
        parallel_tool_calls=False,
        response_format=ResponseFormat("json_object"),
        sampling=SamplingParams(max_tokens=5, temperature=0.0, seed=0),
        stop=("a", "b"),
        stream_usage=False,
        extra_body={"service_tier": "flex"},
        text_tool_calls=False,
    )


def test_a_single_stop_text_is_not_taken_apart():
    assert build_request("m", MESSAGES, {"stop": "END"}).stop == ("END",)


def test_unknown_options_are_refused_by_name_with_the_way_out():
    with pytest.raises(UnsupportedInputError, match=r"no option bottom_p, top_q.*extra_body=\{'bottom_p'"):
        build_request("m", MESSAGES, {"top_q": 1, "bottom_p": 2, "seed": 3})


@pytest.mark.parametrize("wrap", [lambda spec: {"type": "function", "function": spec}, lambda spec: spec])
def test_a_tool_is_read_wrapped_or_bare(wrap):
    spec = {"name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True}
    assert parse_tool(wrap(spec)) == Tool("weather", "Tells it.", SCHEMA, strict=True)


@pytest.mark.parametrize("spec", [{"name": "now"}, {"name": "now", "description": None, "parameters": None}])
def test_a_tool_needs_no_description_and_no_parameters(spec):
    assert parse_tool(spec) == Tool("now", "", {"type": "object", "properties": {}}, strict=None)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"type": "web_search"}, "web_search"),
        ({"type": "web_search_20250305", "name": "web_search"}, "web_search_20250305"),
        ({"google_search": {}}, "google_search"),
        ({"type": "function", "function": {"name": None}}, "function"),
    ],
)
def test_a_tool_that_is_no_function_is_refused_by_name(spec, name):
    with pytest.raises(UnsupportedInputError, match=f"The tool '{name}'"):
        parse_tool(spec)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        (False, None),
        (True, ToolChoice("required")),
        ("any", ToolChoice("required")),
        ("required", ToolChoice("required")),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("weather", ToolChoice("named", "weather")),
        ({"type": "function", "function": {"name": "weather"}}, ToolChoice("named", "weather")),
        ({"type": "tool", "name": "weather"}, ToolChoice("named", "weather")),
        ({"type": "auto"}, ToolChoice("auto")),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "required"}, ToolChoice("required")),
    ],
    ids=repr,
)
def test_a_tool_choice_is_read_in_every_spelling(choice, expected):
    assert parse_tool_choice(choice) == expected


@pytest.mark.parametrize(
    "choice", [{}, {"type": "function"}, {"function": {"name": 1}}, 1, ["weather"]], ids=repr
)
def test_another_tool_choice_is_refused_and_shown(choice):
    with pytest.raises(UnsupportedInputError) as caught:
        parse_tool_choice(choice)
    assert f"tool_choice={choice!r} is not known" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, None),
        ({"type": "text"}, ResponseFormat("text")),
        ({"type": "json_object"}, ResponseFormat("json_object")),
        (
            {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
            ResponseFormat("json_schema", schema=SCHEMA),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}},
            ResponseFormat("json_schema", name="place", schema=SCHEMA, strict=True),
        ),
    ],
)
def test_a_response_format_is_read(spec, expected):
    assert parse_response_format(spec) == expected


@pytest.mark.parametrize(
    "spec", [{}, {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}]
)
def test_another_response_format_is_refused(spec):
    with pytest.raises(UnsupportedInputError, match=r"response_format=.* is not known"):
        parse_response_format(spec)

"""The body of a chat completions call."""

import json

import pytest

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect

HELLO = (Message("user", (Text("Hello"),)),)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool("weather", "Tells the weather.", SCHEMA)


def body(*, stream=False, dialect=ChatCompletionsDialect(), messages=HELLO, **fields):  # noqa: B008 - frozen
    return json.loads(dialect.encode(ChatRequest("m", messages, **fields), stream=stream).body)


def test_a_plain_request_says_no_more_than_needed():
    assert body() == {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1024}


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        (ChatCompletionsDialect(), "/chat/completions"),
        (ChatCompletionsDialect(path="/v2/chat"), "/v2/chat"),
    ],
)
def test_a_call_goes_to_the_dialects_path_without_further_headers(dialect, path):
    call = dialect.encode(ChatRequest("m", HELLO), stream=False)
    assert (call.path, dict(call.headers)) == (path, {})


def test_a_calls_repr_does_not_show_its_body():
    assert "Hello" not in repr(ChatCompletionsDialect().encode(ChatRequest("m", HELLO), stream=False))


@pytest.mark.parametrize(
    "field", [name for name in SamplingParams.__dataclass_fields__ if name != "max_tokens"]
)
@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_sampling_keeps_its_names_and_its_zeros(field, value):
    assert body(sampling=SamplingParams(**{field: value})) == body() | {field: value}


def test_max_tokens_is_sent():
    assert body(sampling=SamplingParams(max_tokens=7))["max_tokens"] == 7


@pytest.mark.parametrize(
    ("stop", "sent"), [((), {}), (("END",), {"stop": ["END"]}), (("a", "b"), {"stop": ["a", "b"]})]
)
def test_stop_texts_are_a_list_or_left_out(stop, sent):
    assert body(stop=stop) == body() | sent


def test_tools_are_described():
    assert body(tools=(WEATHER, Tool("now", strict=True)))["tools"] == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
        },
        {
            "type": "function",
            "function": {
                "name": "now",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            },
        },
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, {}),
        (ToolChoice("auto"), {"tool_choice": "auto"}),
        (ToolChoice("none"), {"tool_choice": "none"}),
        (ToolChoice("required"), {"tool_choice": "required"}),
        (
            ToolChoice("named", "weather"),
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
    ],
    ids=repr,
)
def test_a_tool_choice_is_sent_in_its_form(choice, sent):
    assert body(tools=(WEATHER,), tool_choice=choice) == body(tools=(WEATHER,)) | sent


@pytest.mark.parametrize(
    ("parallel", "sent"),
    [(None, {}), (True, {"parallel_tool_calls": True}), (False, {"parallel_tool_calls": False})],
)
def test_parallel_calls_are_allowed_forbidden_or_left_open(parallel, sent):
    assert body(tools=(WEATHER,), parallel_tool_calls=parallel) == body(tools=(WEATHER,)) | sent


def test_without_tools_nothing_is_said_about_them():
    assert body(tool_choice=ToolChoice("auto"), parallel_tool_calls=False) == body()


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ResponseFormat("text"), {"type": "text"}),
        (ResponseFormat("json_object"), {"type": "json_object"}),
        (
            ResponseFormat("json_schema", schema=SCHEMA),
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        ),
        (
            ResponseFormat("json_schema", name="place", schema=SCHEMA, strict=False),
            {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": False}},
        ),
    ],
)
def test_a_response_format_is_sent_in_its_form(wanted, sent):
    assert body(response_format=wanted) == body() | {"response_format": sent}


@pytest.mark.parametrize(
    ("known", "wanted", "sent"),
    [
        (True, True, {"stream_options": {"include_usage": True}}),
        (True, False, {}),
        (False, True, {}),
        (False, False, {}),
    ],
)
def test_a_stream_asks_for_usage_where_it_is_wanted_and_known(known, wanted, sent):
    dialect = ChatCompletionsDialect(stream_options=known)
    assert body(stream=True, dialect=dialect, stream_usage=wanted) == body() | {"stream": True} | sent


def test_usage_is_asked_for_unless_something_speaks_against_it():
    assert body(stream=True)["stream_options"] == {"include_usage": True}


def test_letters_are_sent_as_they_are_and_without_white_space():
    messages = (Message("user", (Text("Grüße, 日本 🦙\u2028"),)),)
    sent = ChatCompletionsDialect().encode(ChatRequest("m", messages), stream=False).body
    assert '"content":"Grüße, 日本 🦙\u2028"'.encode() in sent


def test_further_fields_of_the_users_own_are_sent():
    extra = {"service_tier": "flex", "n": 1, "temperature": 0.3}
    assert body(extra_body=extra, sampling=SamplingParams(temperature=1)) == body() | extra


@pytest.mark.parametrize(
    "name", ["model", "messages", "stream", "tools", "tool_choice", "max_tokens", "stop"]
)
def test_fields_that_have_a_parameter_are_refused_by_name(name):
    with pytest.raises(UnsupportedInputError, match=f"extra_body may not hold {name}:"):
        body(extra_body={name: None, "service_tier": "flex"})


def test_all_refused_fields_are_named():
    with pytest.raises(UnsupportedInputError, match="may not hold messages, model:"):
        body(extra_body={"model": "x", "messages": []})


@pytest.mark.parametrize("count", [0, 2])
def test_several_answers_at_once_are_refused(count):
    with pytest.raises(UnsupportedInputError, match=r"n > 1.*batch\(\)"):
        body(extra_body={"n": count})


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": (Message("user", (Text("half a pair: \ud83e"),)),)},
        {"sampling": SamplingParams(temperature=float("nan"))},
        {"sampling": SamplingParams(top_p=float("inf"))},
        {"extra_body": {"when": object()}},
        {"tools": (Tool("t", parameters={"enum": {1, 2}}),)},
    ],
    ids=["surrogate", "NaN", "infinity", "object", "set"],
)
def test_what_is_no_json_is_refused_before_it_is_sent(fields):
    with pytest.raises(UnsupportedInputError, match="can't be written as JSON"):
        body(**fields)

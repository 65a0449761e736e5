"""The body of a call in Cloudflare's native dialect: strings for contents, and the picture beside them."""

import base64
import json

import pytest

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, SamplingParams, Tool, ToolChoice
from llama_vision.dialects.workers_ai.dialect import LICENSE_AGREEMENT, RUN_PATH, WorkersAiDialect

MODEL = "@cf/meta/llama-3.2-11b-vision-instruct"
HELLO = Message("user", (Text("Hello"),))
PNG = Image(data=b"\x89PNG\x00\xff", media_type="image/png")
WEATHER = Tool(
    "weather",
    "Tells it.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def body(*messages, stream=False, dialect=WorkersAiDialect(), **fields):  # noqa: B008 - frozen
    request = ChatRequest(MODEL, messages or (HELLO,), **fields)
    return json.loads(dialect.encode(request, stream=stream).body)


def test_the_models_name_stands_in_the_address():
    assert (
        WorkersAiDialect().encode(ChatRequest(MODEL, (HELLO,)), stream=False).path
        == f"{RUN_PATH.removesuffix('{model}')}{MODEL}"
    )


@pytest.mark.parametrize("model", ["../../user/tokens", "a/../b", "m?a=b", "m#x", "", "a//b", "a b"])
def test_a_name_that_leads_to_another_address_is_refused(model):
    with pytest.raises(UnsupportedInputError, match="part of the address"):
        WorkersAiDialect().encode(ChatRequest(model, (HELLO,)), stream=False)


def user(*parts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def refusal(*messages, **fields):
    with pytest.raises(UnsupportedInputError) as caught:
        body(*messages, **fields)
    return str(caught.value)


def test_a_plain_request_says_no_more_than_needed():
    assert body() == {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1024}


def test_the_model_stands_in_the_path_unescaped_and_the_account_is_left_open():
    call = WorkersAiDialect().encode(ChatRequest(MODEL, (HELLO,)), stream=False)
    assert call.path == f"/accounts/{{account}}/ai/run/{MODEL}"
    assert call.path == RUN_PATH.replace("{model}", MODEL)
    assert dict(call.headers) == {}


def test_the_license_is_accepted_with_a_single_word():
    assert json.loads(LICENSE_AGREEMENT) == {"prompt": "agree"}


@pytest.mark.parametrize("wanted", [True, False])
def test_usage_in_a_stream_comes_unasked(wanted):
    assert body(stream=True, stream_usage=wanted) == body() | {"stream": True}


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 5), ("top_p", 0), ("top_k", 50), ("seed", 1), ("repetition_penalty", 2), ("max_tokens", 7)],
)  # fmt: skip
def test_sampling_keeps_its_names(field, value):
    assert body(sampling=SamplingParams(**{field: value})) == body() | {field: value}


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize(
    ("parts", "content"),
    [((), ""), ((Text("Hi"),), "Hi"), ((Text("Hi"), Text("there")), "Hi\nthere")],
    ids=["nothing", "a text", "texts"],
)
def test_contents_are_strings_and_never_null(role, parts, content):
    # null is answered with code 5006
    assert body(Message(role, parts))["messages"] == [{"role": role, "content": content}]


def test_who_speaks_is_told_in_the_words():
    message = Message("user", (Text("Hi"),), name="Ana")
    assert body(message)["messages"] == [{"role": "user", "content": "Ana:\nHi"}]


def test_a_image_goes_beside_the_messages_as_its_bytes():
    sent = body(user("What is this?", PNG))
    assert sent["image"] == [0x89, 0x50, 0x4E, 0x47, 0x00, 0xFF]
    assert sent["messages"] == [{"role": "user", "content": "What is this?"}]


def test_a_image_may_go_as_a_data_url():
    dialect = WorkersAiDialect(image_encoding="data_url")
    encoded = base64.b64encode(PNG.data).decode()
    assert body(user(PNG, "Hi"), dialect=dialect)["image"] == f"data:image/png;base64,{encoded}"


def test_a_image_of_an_earlier_turn_or_of_a_tool_is_the_image():
    earlier = body(user(PNG, "Hi"), Message("assistant", (Text("Ho"),)), user("And?"))
    shown = body(HELLO, Message("tool", (ToolResult("a", (Text("a map"), PNG)),)))
    assert earlier["image"] == shown["image"] == list(PNG.data)
    assert shown["messages"][1] == {"role": "tool", "content": "a map"}


@pytest.mark.parametrize("messages", [[user(PNG, PNG)], [user(PNG), user(PNG)]])
def test_a_second_image_is_refused_and_not_dropped(messages):
    assert "There are 2 images, and Cloudflare takes one" in refusal(*messages)


def test_an_address_is_refused_because_nobody_fetches_it():
    text = refusal(user(Image(url="https://example.com/a.png")))
    assert "does not fetch https://example.com/a.png. Download it" in text


def test_a_tool_call_is_repeated_in_the_models_own_words():
    calls = (ToolCall("a", "weather", '{"city": "Zürich"}'), ToolCall(None, 'x"y', " "))
    (turn,) = body(Message("assistant", (Text("I look."), *calls)))["messages"]
    assert turn == {
        "role": "assistant",
        "content": 'I look.\n{"name": "weather", "parameters": {"city": "Zürich"}}\n'
        '{"name": "x\\"y", "parameters": {}}',
    }


def test_each_result_is_a_turn_with_the_name_of_its_tool():
    calls = Message("assistant", (ToolCall("a", "weather", "{}"), ToolCall("b", "now", "{}")))
    results = (ToolResult("b", (Text("12:00"),)), ToolResult("a", (Text("20 °C"), Text("sunny"))))
    assert body(HELLO, calls, Message("tool", results))["messages"][2:] == [
        {"role": "tool", "content": "12:00", "name": "now"},
        {"role": "tool", "content": "20 °C\nsunny", "name": "weather"},
    ]


def test_an_id_that_comes_again_names_the_call_before_it():
    called, again = (Message("assistant", (ToolCall("a", name, "{}"),)) for name in ("weather", "now"))
    result = Message("tool", (ToolResult("a", (Text("x"),)),))
    sent = body(HELLO, called, result, again, result)["messages"]
    assert [turn["name"] for turn in sent if turn["role"] == "tool"] == ["weather", "now"]


def test_a_result_of_a_call_that_nobody_made_has_no_name():
    (turn,) = body(Message("tool", (ToolResult("x", (Text("?"),)),)))["messages"]
    assert turn == {"role": "tool", "content": "?"}


@pytest.mark.parametrize(
    ("message", "culprit"),
    [
        (user(ToolResult("a", ())), "A user message can't hold a tool's result"),
        (Message("assistant", (ToolResult("a", ()),)), "An? assistant message can't hold a tool's result"),
        (Message("tool", (Text("20 °C"),)), "A tool message can't hold a Text"),
        (Message("tool", (PNG,)), "A tool message can't hold a Image"),
    ],
)
def test_a_part_in_the_wrong_role_is_refused(message, culprit):
    with pytest.raises(UnsupportedInputError, match=culprit):
        body(message)


def test_tools_are_described():
    (tool,) = body(tools=(Tool("now"),))["tools"]
    assert tool == {
        "type": "function",
        "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}},
    }


def test_every_argument_of_a_tool_gets_the_description_that_the_schema_demands():
    described = {"city": {"type": "string", "description": "Which."}, "days": {"type": "integer"}}
    (tool,) = body(tools=(Tool("weather", parameters={"properties": described, "required": ["city"]}),))[
        "tools"
    ]
    assert tool["function"]["parameters"] == {
        "type": "object",
        "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "Which."},
            "days": {"type": "integer", "description": ""},
        },
    }


@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": ["null", "integer"]}, "integer"),
        ({"type": "null"}, "string"),
        ({"anyOf": [{"type": "null"}, {"type": "number"}]}, "number"),
        ({"anyOf": [{"anyOf": []}, {"oneOf": [{"type": "boolean"}]}]}, "boolean"),
        ({"allOf": [{"$ref": "#/$defs/Place"}]}, "object"),
        ({"$ref": "#/$defs/Place"}, "object"),
        ({"$ref": "#/$defs/Colour"}, "string"),
        ({"$ref": "#/$defs/Loose"}, "object"),
        ({"$ref": "#/$defs/Unknown"}, "object"),
        ({"enum": ["a", "b"]}, "string"),
        ({}, "string"),
        (True, "string"),
    ],
    ids=json.dumps,
)
def test_every_argument_of_a_tool_gets_a_type(argument, kind):
    # pydantic writes Optional[int] as anyOf, and an enum or a model as a $ref
    definitions = {"Place": {"type": "object"}, "Colour": {"type": "string", "enum": ["red"]}, "Loose": {}}
    parameters = {"type": "object", "properties": {"one": argument}, "$defs": definitions}
    (tool,) = body(tools=(Tool("t", parameters=parameters),))["tools"]
    sent = tool["function"]["parameters"]
    kept = argument if isinstance(argument, dict) else {}
    assert sent["properties"]["one"] == {"description": "", **kept, "type": kind}
    assert sent["$defs"] == definitions


def test_describing_a_tool_does_not_change_it():
    body(tools=(WEATHER,))
    assert WEATHER.parameters["properties"] == {"city": {"type": "string"}}


@pytest.mark.parametrize(
    ("choice", "offered"), [(None, True), (ToolChoice("auto"), True), (ToolChoice("none"), False)]
)
def test_a_choice_of_no_tool_offers_none(choice, offered):
    # The native schema has no tool_choice.
    sent = body(tools=(WEATHER,), tool_choice=choice)
    assert ("tools" in sent) is offered
    assert "tool_choice" not in sent


def test_further_fields_of_the_users_own_are_sent():
    extra = {"options": {"rejectIfBusy": True}, "lora": "mine"}
    assert body(extra_body=extra) == body() | extra


@pytest.mark.parametrize("name", ["image", "messages", "model", "stream", "max_tokens"])
def test_fields_that_have_a_parameter_are_refused_by_name(name):
    assert f"extra_body may not hold {name}:" in refusal(extra_body={name: None})


def test_what_is_no_json_is_refused_before_it_is_sent():
    assert "can't be written as JSON" in refusal(sampling=SamplingParams(temperature=float("nan")))

"""What tools take, as it arrives at every provider through both adapters, and what they are called with, in both directions."""

import json
from typing import Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from llama_vision import Message, Text, ToolCall, ToolResult
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.contract.adapters import _account
from tests.contract.offers import arrived, definitions
from tests.contract.text_replies import tool
from tests.emulator import completion
from tests.fitting import fits

BOOK = tool(
    "tisch_für_東京",
    'Book a "table" \\ 予約 🍣\nin two lines',
    guest={
        "type": "object",
        "description": "Who comes",
        "properties": {"name": {"type": "string"}, "größe": {"type": ["number", "null"]}},
        "required": ["name"],
        "additionalProperties": False,
    },
    dishes={"type": "array", "items": {"enum": ["sushi", "ramen 🍜", 7, None]}, "description": "", "minItems": 1},
    where={"enum": ["inside", "outside"], "type": "string", "description": "Where", "default": "inside"},
    when={"type": "integer", "description": "Hours", "default": 19, "minimum": -1},
    smoking={"type": "boolean", "description": "", "default": False},
)  # fmt: skip
BOOK["function"]["parameters"]["required"] = ["guest", "dishes"]
BOOKED = {
    "guest": {"name": 'Zoë "Z" \\ {x}\n\t', "größe": -1.5e3},
    "dishes": ["sushi", "ramen 🍜", 7, None, []],
    "smoking": True,
    "when": 10**18,
    "größe": {},
}


def test_a_schema_arrives_as_it_is(subject):
    subject.ask("Hello!", tools=[BOOK])
    (sent,) = arrived(subject)
    assert sent == BOOK
    assert subject.emulator.requests[0].content.count("tisch_für_東京".encode()) == 1


@pytest.mark.parametrize("form", ["reported", "JSON", "a function tag", "pythonic", "a list of them"])
def test_any_values_come_back_and_go_there_again(subject, form):
    written = json.dumps(BOOKED, ensure_ascii=form == "JSON")
    name = BOOK["function"]["name"]
    texts = {
        "JSON": f'{{"name": {json.dumps(name, ensure_ascii=False)}, "parameters": {written}}}',
        "a function tag": f"<function={name}>{written}</function>",
        "pythonic": f"[{name}({', '.join(f'{key}={value!r}' for key, value in BOOKED.items())})]",
        "a list of them": f'[{{"arguments": {written}, "name": "{name}"}}]',
    }
    if form == "reported":
        subject.need("tools")
    reply = completion(calls=[(name, BOOKED)]) if form == "reported" else completion(texts[form])
    subject.emulator.script(reply, completion("Done."))
    answer = subject.ask("Book!", tools=[BOOK])
    assert (answer.calls, answer.text) == ([(name, BOOKED)], "")
    (call_id,) = answer.call_ids
    called = Message("assistant", (ToolCall(call_id, name, json.dumps(BOOKED, ensure_ascii=False)),))
    told = Message("tool", (ToolResult(call_id, (Text('{"ok": "はい"}'),)),))
    assert subject.ask("Book!", called, told, tools=[BOOK]).text == "Done."
    said = subject.emulator.requests[1].body["messages"][1]
    if "tool_calls" in said:
        (call,) = said["tool_calls"]
        sent = json.loads(call["function"]["arguments"])
    else:
        sent = json.loads(said["content"])["parameters"]
    assert sent == BOOKED
    assert "はい" in subject.emulator.requests[1].content.decode()


NOTHING = {"type": "object", "properties": {}}
WITHOUT_ARGUMENTS = {
    "a name alone": ({}, '{"name": "now", "parameters": {}}'),
    "no schema": ({"description": "", "parameters": {}}, "[now()]"),
    "an empty schema": ({"parameters": NOTHING}, "<function=now>{}</function>"),
    "no schema at all": ({"parameters": None}, "<|python_tag|>now.call()"),
    "reported": ({}, None),
}


@pytest.mark.parametrize("form", WITHOUT_ARGUMENTS)
def test_a_tool_without_arguments(subject, form):
    more, written = WITHOUT_ARGUMENTS[form]
    if written is None:
        subject.need("tools")
    subject.emulator.script(completion(written) if written else completion(calls=[("now", "")]))
    offered = {"type": "function", "function": {"name": "now", **more}}
    assert subject.ask("Hello!", tools=[offered]).calls == [("now", {})]
    (sent,) = arrived(subject)
    assert sent["function"] == {"name": "now", "description": "", "parameters": NOTHING}


class Seat(BaseModel):
    """A seat."""

    row: int = Field(description="From the front", ge=1)
    side: Literal["left", "right"] = "left"


class Reserve(BaseModel):
    """Reserve seats."""

    seats: list[Seat]
    note: str | None = None
    paid: bool = False


def reserve(seats: list[Seat], note: str | None = None, paid: bool = False) -> str:
    """Reserve seats."""
    return f"{seats} {note} {paid}"


RESERVED = {"seats": [{"row": 3, "side": "right"}, {"row": 4}], "note": None}


@pytest.mark.parametrize("provider", ["deepinfra", "aimlapi", "aigateway", "cloudflare", "cloudflare-openai"])
def test_classes_and_functions_are_tools(emulator_of, provider):
    """Nested models, a choice of words, and what is left out: described for the model, and read from its words."""
    emulator = emulator_of(provider)
    options = {"provider": provider, "api_key": emulator.api_key, **_account(provider)}
    written = f'{{"name": "%s", "parameters": {json.dumps(RESERVED)}}}'
    emulator.script(completion(written % "Reserve"), completion(written % "reserve"))
    message = ChatLlamaVision(base_url=emulator.base_url, **options).bind_tools([Reserve]).invoke("Go!")
    assert [call["args"] for call in message.tool_calls] == [RESERVED]
    assert Reserve(**message.tool_calls[0]["args"]).seats[1].side == "left"
    model = LlamaVision(api_base=emulator.base_url, **options)
    response = model.chat_with_tools([FunctionTool.from_defaults(reserve)], ChatMessage("Go!"))
    (selected,) = model.get_tool_calls_from_response(response)
    assert (selected.tool_name, selected.tool_kwargs) == ("reserve", RESERVED)
    for request in emulator.requests:
        body = request.body
        (sent,) = body.get("tools") or definitions(body["messages"][0]["content"])
        parameters = sent["function"]["parameters"]
        assert parameters["required"] == ["seats"]
        for name, value in RESERVED.items():
            if name == "note" and provider == "cloudflare":
                continue  # which has to be told one type, and null is not it
            assert fits(value, parameters["properties"][name], parameters)

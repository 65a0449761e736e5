"""Tool calls in a reply: their arguments, their ids, and those that a model wrote as text."""

import json
from functools import reduce

import pytest

from llama_vision import Message, Text, Tool, ToolCall, ToolResult
from llama_vision.langchain import ChatLlamaVision
from tests.emulator import completion
from tests.quirks.talk import answered, ask, said, told

TOOL = Tool("f", "Do it.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}
CITY = json.dumps({"city": "Paris"})


ARGUMENTS = {
    "object": ({"city": "Paris"}, {"city": "Paris"}),
    "text": (CITY, {"city": "Paris"}),
    "empty": ("", {}),
    "null": (None, {}),
    "null as text": ("null", {}),
    "encoded twice": (json.dumps(CITY), {"city": "Paris"}),
}


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
@pytest.mark.parametrize("form", ARGUMENTS)
def test_quirk_21_arguments_come_in_six_forms(emulator_of, way, provider, form):
    wire, arguments = ARGUMENTS[form]
    native = provider == "cloudflare"
    call = {"name": "f", "arguments": wire}
    script = (
        told({"response": None, "tool_calls": [call]})
        if native
        else said({"content": None, "tool_calls": [{"id": "c", "type": "function", "function": call}]})
    )
    reply = answered(emulator_of, way, script, provider, tools=(TOOL,))
    assert reply.tool_calls[0].parsed() == arguments


@pytest.mark.parametrize("form", ["text", "encoded twice"])
def test_quirk_21_arguments_in_pieces_are_one_object_in_the_end(emulator_of, form):
    emulator = emulator_of("deepinfra")
    emulator.script(completion(calls=[("f", ARGUMENTS[form][0])]))
    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)
    message = reduce(lambda first, second: first + second, model.stream("Go!"))
    assert [call["args"] for call in message.tool_calls] == [{"city": "Paris"}]


def test_quirk_22_calls_without_ids_get_some_of_their_own(emulator_of, way):
    calls = [{"name": "f", "arguments": {"city": city}} for city in ("Paris", "Rome")]
    reply = answered(emulator_of, way, told({"response": None, "tool_calls": calls}), "cloudflare")
    assert [call.parsed()["city"] for call in reply.tool_calls] == ["Paris", "Rome"]
    first, second = (call.id for call in reply.tool_calls)
    assert first
    assert second
    assert first != second


@pytest.mark.parametrize("indices", [(0, 1), (None, None)])
def test_quirk_22_an_id_that_comes_twice_becomes_two(emulator_of, way, indices):
    if indices[0] is None and "stream" in way:
        indices = (0, 1)  # without an index, the id is all that holds the pieces of a streamed call together
    calls = [{**CALL, "index": index} for index in indices]
    reply = answered(emulator_of, way, said({"content": None, "tool_calls": calls}, "tool_calls"))
    assert [call.arguments for call in reply.tool_calls] == [CITY, CITY]
    assert len({call.id for call in reply.tool_calls}) == 2


def turn(name, result):
    return (
        Message("assistant", (ToolCall("call_0", name, "{}"),)),
        Message("tool", (ToolResult("call_0", (Text(result),)),)),
    )


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
def test_quirk_22_an_id_used_again_in_a_later_turn_stays_with_its_own_result(emulator_of, way, provider):
    emulator = emulator_of(provider)
    history = [Message("user", (Text("Go!"),)), *turn("f", "sunny"), *turn("g", "noon")]
    ask(emulator, provider, way, *history)
    sent = [message for message in emulator.requests[0].body["messages"] if message["role"] == "tool"]
    assert [message["content"] for message in sent] == ["sunny", "noon"]
    if provider == "cloudflare":  # which has no ids, and pairs by name
        assert [message["name"] for message in sent] == ["f", "g"]


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
@pytest.mark.parametrize("text", ['{"name": "f", "parameters": null}', "<function=f></function>"])
def test_a_call_in_words_without_arguments_is_a_call(emulator_of, way, text, provider):
    reply = answered(emulator_of, way, completion(text), provider, tools=(TOOL,))
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == [("f", {})]
    assert reply.text == ""


LEAKED = {
    "JSON": f'{{"name": "f", "parameters": {CITY}}}',
    "arguments": f'{{"type": "function", "name": "f", "arguments": {CITY}}}',
    "a tag": f"<function=f>{CITY}</function>",
    "a tag without its bracket": f"<function=f{CITY}</function>",
    "a tag with its bracket late": f"<function=f {CITY}></function>",
    "pythonic": "[f(city='Paris')]",
    "fenced": f'```json\n{{"name": "f", "parameters": {CITY}}}\n```',
}
THROUGH = ("deepinfra", "aimlapi", "aigateway", "cloudflare", "cloudflare-openai")


@pytest.mark.parametrize("provider", THROUGH)
@pytest.mark.parametrize("form", LEAKED)
def test_quirk_23_a_call_that_leaked_as_text_is_a_call(emulator_of, way, provider, form):
    reply = answered(emulator_of, way, completion(LEAKED[form]), provider, tools=(TOOL,))
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == [("f", {"city": "Paris"})]
    assert reply.tool_calls[0].id
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("provider", THROUGH)
@pytest.mark.parametrize("form", LEAKED)
@pytest.mark.parametrize("tools", [(), (Tool("g"),)])
def test_quirk_23_it_is_trusted_only_where_its_name_was_offered(emulator_of, way, provider, form, tools):
    reply = answered(emulator_of, way, completion(LEAKED[form]), provider, tools=tools)
    assert (reply.text, reply.tool_calls, reply.finish_reason) == (LEAKED[form], (), "stop")


def test_quirk_23_cloudflare_may_have_read_the_json_already(emulator_of, way):
    """A native response that was JSON text comes as an object."""
    script = told({"response": {"name": "f", "parameters": {"city": "Paris"}}, "tool_calls": []})
    reply = answered(emulator_of, way, script, "cloudflare", tools=(TOOL,))
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == [("f", {"city": "Paris"})]
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("provider", THROUGH)
@pytest.mark.parametrize("form", ["JSON", "a tag", "pythonic"])
def test_quirk_24_a_tag_before_a_call_goes_with_it(emulator_of, way, provider, form):
    reply = answered(
        emulator_of, way, completion(f"<|python_tag|>{LEAKED[form]}<|eom_id|>"), provider, tools=(TOOL,)
    )
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == [("f", {"city": "Paris"})]
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("tools", [(), (TOOL,)])
def test_quirk_24_a_tag_before_words_is_one_of_them(emulator_of, way, tools):
    reply = answered(emulator_of, way, completion("<|python_tag|>print(1)"), tools=tools)
    assert (reply.text, reply.tool_calls) == ("<|python_tag|>print(1)", ())

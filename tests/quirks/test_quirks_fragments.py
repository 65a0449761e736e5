"""Fragments of tool calls that are numbered and named carelessly: a tool is never run with defaults instead."""

import asyncio
from functools import reduce

import pytest
from llama_index.core.llms import ChatMessage

from llama_vision.core.errors import MalformedReplyError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import event_stream
from tests.emulator.asking import collected
from tests.quirks.talk import ask, said

OSLO, LIMA = '{"city": "Oslo"}', '{"city": "Lima"}'


def fragment(arguments="", name=None, **fields):
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": 0, "function": function, **fields}


STREAMS = {
    "an id on every fragment": (
        [fragment(name="get_weather", id="a"), fragment(OSLO, id="b")],
        [("get_weather", {"city": "Oslo"})],
    ),
    "the id null": (
        [fragment(name="get_weather", id="a"), fragment(OSLO, id="null")],
        [("get_weather", {"city": "Oslo"})],
    ),
    "a name in pieces": (
        [fragment(name="get_", id="a"), fragment(name="weather"), fragment(OSLO)],
        [("get_weather", {"city": "Oslo"})],
    ),
    "two at index 0 without ids": (
        [fragment(OSLO, name="get_weather"), fragment(LIMA, name="get_weather")],
        [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Lima"})],
    ),
}

every_stream = pytest.mark.parametrize(("fragments", "calls"), STREAMS.values(), ids=STREAMS)


def script(emulator, fragments):
    emulator.script(
        event_stream(
            *({"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in fragments),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            "[DONE]",
        )
    )


@every_stream
def test_fragments_are_the_calls_that_the_model_made(emulator_of, streamed_way, fragments, calls):
    emulator = emulator_of("deepinfra")
    script(emulator, fragments)
    reply = ask(emulator, "deepinfra", streamed_way)
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == calls


@every_stream
@pytest.mark.parametrize("style", ["stream", "astream"])
def test_langchain_gets_them_as_well(emulator_of, style, fragments, calls):
    emulator = emulator_of("deepinfra")
    script(emulator, fragments)
    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)
    chunks = list(model.stream("Go!")) if style == "stream" else asyncio.run(collected(model.astream("Go!")))
    message = reduce(lambda first, second: first + second, chunks)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == calls
    assert message.invalid_tool_calls == []


@every_stream
def test_llamaindex_gets_them_as_well(emulator_of, fragments, calls):
    emulator = emulator_of("deepinfra")
    script(emulator, fragments)
    model = LlamaVision(provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key)
    *_, last = model.stream_chat([ChatMessage("Go!")])
    found = model.get_tool_calls_from_response(last)
    assert [(call.tool_name, call.tool_kwargs) for call in found] == calls


NAMELESS = said(
    {"content": "Hm", "tool_calls": [{"index": 0, "id": "a", "function": {"arguments": OSLO}}]}, "tool_calls"
)


def ask_langchain(emulator, style):
    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)
    match style:
        case "invoke":
            return model.invoke("Go!")
        case "stream":
            return list(model.stream("Go!"))
        case "ainvoke":
            return asyncio.run(model.ainvoke("Go!"))
        case _:
            return asyncio.run(collected(model.astream("Go!")))


def ask_llamaindex(emulator, style):
    model = LlamaVision(provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key)
    message = [ChatMessage("Go!")]

    async def streamed():
        return await collected(await model.astream_chat(message))

    match style:
        case "invoke":
            return model.chat(message)
        case "stream":
            return list(model.stream_chat(message))
        case "ainvoke":
            return asyncio.run(model.achat(message))
        case _:
            return asyncio.run(streamed())


@pytest.mark.parametrize("style", ["invoke", "stream", "ainvoke", "astream"])
@pytest.mark.parametrize("ask_framework", [ask_langchain, ask_llamaindex], ids=["LangChain", "LlamaIndex"])
def test_a_call_whose_name_never_comes_is_an_error_that_shows_its_arguments(
    emulator_of, ask_framework, style
):
    emulator = emulator_of("deepinfra")
    emulator.script(NAMELESS)
    with pytest.raises(MalformedReplyError, match=r"called a tool without naming it.*Oslo") as caught:
        ask_framework(emulator, style)
    assert (caught.value.partial.text, caught.value.partial.tool_calls) == ("Hm", ())
    assert len(emulator.requests) == 1

"""Half a letter: servers that cut between the units of UTF-16, and models that write one half only."""

import asyncio
import json
from functools import reduce

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.llms import ChatMessage

from llama_vision import Tool
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import completion, event_stream, json_answer
from tests.emulator.asking import collected
from tests.quirks.talk import ask, either

TOOL = Tool("f", "Do it.", {"type": "object", "properties": {"city": {"type": "string"}}})
SAID = {
    "a pair": (["Hi \ud83d", "\ude00!"], "Hi 😀!"),
    "a pair with nothing between": (["Hi \ud83d", "", "\ude00!"], "Hi 😀!"),
    "a lone first half": (["Hi \ud83d", " there"], "Hi \ufffd there"),
    "a lone second half": (["Hi \ude00", " there"], "Hi \ufffd there"),
    "a half at the end": (["Hi ", "\ud83d"], "Hi \ufffd"),
}
ARGUMENTS = {
    "a pair": (['{"city": "\ud83d', '\ude00"}'], "😀"),
    "escapes": (['{"city": "\\ud83d', '\\ude00"}'], "😀"),
    "cut in an escape": (['{"city": "\\ud8', "3d\\u", 'de00"}'], "😀"),
    "a lone half": (['{"city": "\ud83d', '"}'], "\ufffd"),
    "a lone escape": (['{"city": "\\ud83d', '"}'], "\ufffd"),
    "a lone second escape": (['{"city": "', '\\ude00"}'], "\ufffd"),
    "encoded twice": ([json.dumps('{"city": "\\ud83d"}')], "\ufffd"),
}


def answer(*deltas, whole, reason="stop"):
    """Say deltas in a stream, or the message `whole`; JSON with escapes has its halves as they are."""
    stream = [json.dumps({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    stream.append(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
    return either(
        json_answer({"choices": [{"index": 0, "message": whole, "finish_reason": reason}]}),
        event_stream(*(f"data: {chunk}\n\n".encode() for chunk in stream), "[DONE]"),
    )


def saying(pieces):
    return answer(*({"content": piece} for piece in pieces), whole={"content": "".join(pieces)})


def calling(pieces):
    def call(arguments, **head):
        return {
            "tool_calls": [
                {"index": 0, **head, "function": {"arguments": arguments, "name": head.pop("name", None)}}
            ]
        }

    first, *rest = pieces
    return answer(
        call(first, id="a", name="f"),
        *map(call, rest),
        whole=call("".join(pieces), id="a", name="f"),
        reason="tool_calls",
    )


@pytest.mark.parametrize("form", SAID)
def test_halves_in_two_chunks_are_one_letter(emulator_of, way, form):
    pieces, text = SAID[form]
    emulator = emulator_of("deepinfra")
    emulator.script(saying(pieces))
    reply = ask(emulator, "deepinfra", way)
    assert (reply.text, reply.finish_reason) == (text, "stop")


@pytest.mark.parametrize("form", ARGUMENTS)
def test_halves_in_arguments_are_one_letter(emulator_of, way, form):
    pieces, city = ARGUMENTS[form]
    emulator = emulator_of("deepinfra")
    emulator.script(calling(pieces))
    (call,) = ask(emulator, "deepinfra", way, tools=(TOOL,)).tool_calls
    assert (call.name, call.parsed()) == ("f", {"city": city})


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
def test_half_a_letter_in_a_call_in_words_is_replaced(emulator_of, way, provider):
    emulator = emulator_of(provider)
    emulator.script(completion('{"name": "f", "parameters": {"city": "\\ud83d"}}'))
    (call,) = ask(emulator, provider, way, tools=(TOOL,)).tool_calls
    assert call.parsed() == {"city": "\ufffd"}


def test_half_a_letter_in_a_native_response_is_replaced(emulator_of, way):
    emulator = emulator_of("cloudflare")
    halves = [json.dumps({"response": half}).encode() for half in ("Hi \ud83d", "\ude00")]
    emulator.script(
        either(
            json_answer({"result": {"response": "Hi \ud83d\ude00\ud83d"}, "success": True}),
            event_stream(
                *(b"data: " + half + b"\n\n" for half in (*halves, halves[0][:14] + b'\\ud83d"}')), "[DONE]"
            ),
        )
    )
    assert ask(emulator, "cloudflare", way).text == "Hi 😀\ufffd"


@pytest.mark.parametrize("style", ["invoke", "stream", "ainvoke", "astream"])
@pytest.mark.parametrize("form", ARGUMENTS)
def test_langchain_can_send_the_call_back(emulator_of, style, form):
    emulator = emulator_of("deepinfra")
    emulator.script(calling(ARGUMENTS[form][0]), completion("Done."))
    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)
    styles = {
        "invoke": lambda: model.invoke("Go!"),
        "stream": lambda: reduce(lambda first, second: first + second, model.stream("Go!")),
        "ainvoke": lambda: asyncio.run(model.ainvoke("Go!")),
        "astream": lambda: reduce(
            lambda first, second: first + second, asyncio.run(collected(model.astream("Go!")))
        ),
    }
    message = styles[style]()
    assert [call["args"] for call in message.tool_calls] == [{"city": ARGUMENTS[form][1]}]
    message.model_dump_json().encode()  # as a checkpointer would
    turn = AIMessage("", tool_calls=message.tool_calls)
    assert model.invoke([HumanMessage("Go!"), turn, ToolMessage("ok", tool_call_id="a")]).text == "Done."


@pytest.mark.parametrize("form", SAID)
def test_llamaindex_can_send_the_text_back(emulator_of, form):
    emulator = emulator_of("deepinfra")
    emulator.script(saying(SAID[form][0]), saying(SAID[form][0]), completion("Done."))
    model = LlamaVision(provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key)
    whole = model.chat([ChatMessage("Hi")]).message
    *_, last = model.stream_chat([ChatMessage("Hi")])
    assert whole.content == last.message.content == SAID[form][1]
    assert model.chat([ChatMessage("Hi"), whole, ChatMessage("Go on")]).message.content == "Done."


def test_names_and_ids_with_half_a_letter_can_be_sent_back(emulator_of, way):
    call = {"index": 0, "id": "a\ud83d", "function": {"name": "f\ude00", "arguments": "{}"}}
    emulator = emulator_of("deepinfra")
    emulator.script(answer({"tool_calls": [call]}, whole={"tool_calls": [call]}, reason="tool\ud83d"))
    reply = ask(emulator, "deepinfra", way)
    (found,) = reply.tool_calls
    assert (found.id, found.name, reply.finish_reason) == ("a\ufffd", "f\ufffd", "tool\ufffd")

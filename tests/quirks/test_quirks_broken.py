"""Replies that broke off behind a 200: they are errors with what had arrived, and never short answers."""

import asyncio

import pytest

from llama_vision.core.errors import StreamError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import event_stream, json_answer
from tests.quirks.talk import answered, ask, either, said

REPORTED = {"code": 502, "message": "upstream overloaded"}


def broken(reason, **on_the_choice):
    """Say `Hel`, and break off."""
    choice = {"index": 0, "finish_reason": reason, **on_the_choice}
    return either(
        json_answer({"choices": [{**choice, "message": {"content": "Hel"}}]}),
        event_stream(
            {"choices": [{"index": 0, "delta": {"content": "Hel"}}]},
            {"choices": [{**choice, "delta": {}}]},
            "[DONE]",
        ),
    )


BROKEN = {
    "abort": (broken("abort"), "finish reason 'abort'"),
    "error": (broken("error"), "finish reason 'error'"),
    "error on the choice": (broken("error", error=REPORTED), "502: upstream overloaded"),
    "error on the choice, no reason": (broken(None, error=REPORTED), "502: upstream overloaded"),
    "error on the choice, stop": (broken("stop", error="upstream overloaded"), "upstream overloaded"),
}


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare", "openai-compatible"])
@pytest.mark.parametrize("form", BROKEN)
def test_a_reply_that_broke_off_is_an_error_with_its_part_and_is_not_asked_again(
    emulator_of, way, provider, form
):
    script, message = BROKEN[form]
    emulator = emulator_of(provider)
    emulator.script(script)
    with pytest.raises(StreamError, match=message) as caught:
        ask(emulator, provider, way)
    assert caught.value.partial.text == "Hel"
    assert len(emulator.requests) == 1


def test_an_error_on_the_choice_beside_no_text_is_told_in_the_providers_words(emulator_of, way):
    script = json_answer({"choices": [{"message": {"content": None}, "error": REPORTED}]})
    with pytest.raises(StreamError, match="502: upstream overloaded"):
        answered(emulator_of, way, script)


@pytest.mark.parametrize("reason", ["eos", "stop_sequence", "end_turn", "eos_token", "content_filter"])
def test_a_finish_reason_of_the_providers_own_is_an_answer(emulator_of, way, reason):
    reply = answered(emulator_of, way, said({"content": "Hello"}, reason))
    assert (reply.text, reply.finish_reason) == ("Hello", reason)


@pytest.mark.parametrize("nothing", [None, "", {}, []], ids=repr)
def test_an_empty_error_on_the_choice_is_none(emulator_of, way, nothing):
    assert answered(emulator_of, way, broken("stop", error=nothing)).text == "Hel"


def test_a_broken_reply_that_repeats_the_key_does_not_show_it(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(broken("error", error={"message": f"bad key {emulator.api_key}"}))
    with pytest.raises(StreamError, match=r"bad key \[key\]") as caught:
        ask(emulator, "deepinfra", way)
    assert emulator.api_key not in repr(caught.value)


@pytest.mark.parametrize("style", ["invoke", "stream", "ainvoke", "astream"])
def test_langchain_raises_for_a_reply_that_broke_off(emulator_of, style):
    emulator = emulator_of("deepinfra")
    emulator.script(broken("abort"))
    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)

    async def streamed():
        return [chunk async for chunk in model.astream("Hi")]

    calls = {
        "invoke": lambda: model.invoke("Hi"),
        "stream": lambda: list(model.stream("Hi")),
        "ainvoke": lambda: asyncio.run(model.ainvoke("Hi")),
        "astream": lambda: asyncio.run(streamed()),
    }
    with pytest.raises(StreamError, match="abort") as caught:
        calls[style]()
    assert caught.value.partial.text == "Hel"


@pytest.mark.parametrize("style", ["complete", "stream"])
def test_llamaindex_raises_for_a_reply_that_broke_off(emulator_of, style):
    emulator = emulator_of("deepinfra")
    emulator.script(broken("abort"))
    model = LlamaVision(provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key)
    with pytest.raises(StreamError, match="abort") as caught:
        model.complete("Hi") if style == "complete" else list(model.stream_complete("Hi"))
    assert caught.value.partial.text == "Hel"

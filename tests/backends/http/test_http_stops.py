"""Stop texts that a provider does not know are watched for here, and end the reply and the connection."""

import asyncio
import json
from dataclasses import replace

import pytest

from llama_vision import Reply, Tool, Usage, find_provider
from llama_vision.core.events import Finished, TextDelta
from tests.emulator import ACCOUNT_ID, STALL, Emulator, chunks, completion, event_stream, json_answer
from tests.emulator.asking import STREAMED_WAYS, WAYS, ask, backend_for, collected, question


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def emulator(emulator_of) -> Emulator:
    return emulator_of("aigateway")


def asked(*stop: str, provider: str = "aigateway"):
    return replace(question(stop=stop), model=find_provider(provider).models[0].id)


def backend(emulator: Emulator, provider: str = "aigateway"):
    return backend_for(emulator, provider, max_retries=0)


def piece(text: str | None = None, finish_reason: str | None = None, **more):
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta | more, "finish_reason": finish_reason}]}


def test_a_stop_text_ends_the_reply_and_is_no_part_of_it(emulator, way):
    emulator.script(completion("one two STOP three"))
    reply = ask(backend(emulator), way, asked("STOP"))
    assert (reply.text, reply.finish_reason) == ("one two ", "stop")
    assert "stop" not in emulator.requests[0].body


@pytest.mark.parametrize("provider", ["cloudflare", "cloudflare-openai"])
def test_it_does_so_in_every_dialect(emulator_of, way, provider):
    emulator = emulator_of(provider)
    emulator.script(completion("one two STOP three"))
    asking = backend_for(emulator, provider, account_id=ACCOUNT_ID)
    reply = ask(asking, way, asked("STOP", provider=provider))
    assert (reply.text, reply.finish_reason) == ("one two ", "stop")
    assert "stop" not in emulator.requests[0].body


def test_a_provider_that_knows_stop_texts_is_told_them(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(completion("one STOP two"))
    reply = ask(backend(emulator, "deepinfra"), way, question(stop=("STOP",)))
    assert emulator.requests[0].body["stop"] == ["STOP"]
    assert reply.text == "one STOP two"  # it is the provider's part


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("three", "two"), "one "),
        (("two thr",), "one "),
        ((" two", "one two"), ""),
        (("one",), ""),
        (("four",), "one two thr"),
        (("three",), "one two thr"),
        (("", "two"), "one "),
        (("",), "one two thr"),
    ],
    ids=repr,
)
def test_the_first_stop_text_that_is_complete_counts(emulator, way, stop, text):
    emulator.script(completion("one two thr"))
    assert ask(backend(emulator), way, asked(*stop)).text == text


@pytest.mark.parametrize(
    "pieces", [["on", "e S", "T", "OP t", "wo"], ["one ", "STOP", " two"], ["one STOP two"]]
)
@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stop_text_may_come_in_pieces(emulator, way, pieces):
    emulator.script(event_stream(*map(piece, pieces), piece(finish_reason="stop"), "[DONE]"))
    assert ask(backend(emulator), way, asked("STOP")).text == "one "


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_the_beginning_of_a_stop_text_at_the_end_is_a_part_of_the_reply(emulator, way):
    emulator.script(event_stream(piece("one S"), piece("TO"), piece(finish_reason="length"), "[DONE]"))
    reply = ask(backend(emulator), way, asked("STOP"))
    assert (reply.text, reply.finish_reason) == ("one STO", "length")


def test_no_event_shows_what_may_be_the_beginning_of_a_stop_text(emulator):
    emulator.script(event_stream(piece("one S"), piece("TO"), piece("NE"), piece("STOP"), STALL))
    events = list(backend(emulator).stream(asked("STOP")))
    assert events[1:] == [TextDelta("one "), TextDelta("STONE"), Finished("stop")]


def test_a_stream_is_left_as_soon_as_its_stop_text_has_come(emulator):
    emulator.script(event_stream(piece("one STOP"), piece(" two"), STALL))
    reply = Reply.from_events(backend(emulator).stream(asked("STOP")))
    assert (reply.text, reply.finish_reason) == ("one ", "stop")
    assert emulator.wait_for_disconnect()


async def test_an_asynchronous_stream_is_left_as_soon_as_its_stop_text_has_come(emulator):
    emulator.script(event_stream(piece("one STOP"), piece(" two"), STALL))
    events = await collected(backend(emulator).astream(asked("STOP")))
    assert events[-2:] == [TextDelta("one "), Finished("stop")]
    assert await asyncio.to_thread(emulator.wait_for_disconnect)


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stream_that_is_left_says_nothing_of_counts_it_did_not_get(emulator, way):
    emulator.script(event_stream(piece("one STOP"), {"usage": {"prompt_tokens": 5}}, STALL))
    assert ask(backend(emulator), way, asked("STOP")).usage == Usage()


@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_a_whole_reply_keeps_its_counts_because_they_were_paid_for(emulator, way):
    usage = {"prompt_tokens": 5, "completion_tokens": 4, "cost": 0.5}
    emulator.script(json_answer(completion("one STOP two", usage=usage, finish_reason="length")))
    reply = ask(backend(emulator), way, asked("STOP"))
    assert (reply.text, reply.finish_reason, reply.usage) == ("one ", "stop", Usage(5, 4, cost_usd=0.5))


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stop_text_on_the_last_chunk_counts(emulator, way):
    emulator.script(event_stream(piece("one "), piece("STOP", "length"), "[DONE]"))
    reply = ask(backend(emulator), way, asked("STOP"))
    assert (reply.text, reply.finish_reason) == ("one ", "stop")


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stream_that_is_answered_with_a_whole_reply_ends_at_its_stop_text_too(emulator, way):
    emulator.script(json_answer(completion("one STOP two")))
    reply = ask(backend(emulator), way, asked("STOP"))
    assert (reply.text, reply.usage.input_tokens) == ("one ", 15)


def test_tool_calls_are_no_words_to_look_for_a_stop_text_in(emulator, way):
    emulator.script(completion("I look.", calls=[("STOP", {"city": "STOP"})]))
    (call,) = (reply := ask(backend(emulator), way, asked("STOP"))).tool_calls
    assert (call.name, call.parsed()) == ("STOP", {"city": "STOP"})
    assert (reply.text, reply.finish_reason) == ("I look.", "tool_calls")


def test_a_stop_token_that_leaks_is_cut_off_before_stop_texts_are_looked_for(emulator, way):
    emulator.script(completion("one STO</s>"))
    assert ask(backend(emulator), way, asked("STOP")).text == "one STO"


def test_a_reply_that_broke_off_shows_what_was_certain(emulator):
    emulator.script(event_stream(*list(chunks(completion("one STO two")))[:2], b"data: {broken\n\n"))
    with pytest.raises(Exception, match="broken") as caught:
        ask(backend(emulator), "stream", asked("STOP"))
    assert caught.value.partial.text == "one "
    assert json.dumps(emulator.requests[0].body)


def test_calls_behind_a_stop_text_are_behind_the_end_of_the_reply(emulator, way):
    emulator.script(completion("one STOP two", calls=[("look", {})]))
    reply = ask(backend(emulator), way, asked("STOP"))
    assert (reply.text, reply.tool_calls, reply.finish_reason) == ("one ", (), "stop")


def test_what_may_be_the_beginning_of_a_stop_text_comes_before_the_calls(emulator, way):
    """So that a call in the words is whole when one that the provider found comes."""
    tools = (Tool("look"), Tool("wait"))
    emulator.script(completion('{"name": "look", "parameters": {}}', calls=[("wait", {})]))
    reply = ask(backend(emulator), way, replace(asked("}STOP"), tools=tools))
    assert (reply.text, [call.name for call in reply.tool_calls]) == ("", ["look", "wait"])

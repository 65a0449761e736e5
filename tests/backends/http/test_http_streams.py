"""Streams over a real socket: left early, cut, stalled, wrong, and answered in another form."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llama_vision.core.errors import (
    LlamaVisionError,
    MalformedReplyError,
    RequestTimeoutError,
    ServerError,
    TruncatedStreamError,
)
from llama_vision.core.events import TextDelta
from tests.emulator import (
    HANG_UP,
    STALL,
    Answer,
    Emulator,
    Wait,
    chunks,
    completion,
    event_stream,
    json_answer,
    page,
    sse,
)
from tests.emulator.asking import STREAMED_WAYS, WAYS, ask, backend_for, collected, question

BEGINNING = list(chunks(completion("Hello there")))[:-1]  # without the chunk that says why it ended


@pytest.fixture(params=STREAMED_WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


class ConsumerError(Exception):
    pass


def test_break_closes_a_stream_at_once(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, STALL))
    for event in backend_for(emulator).stream(question()):
        if isinstance(event, TextDelta):
            break
    assert emulator.wait_for_disconnect()


async def test_break_closes_an_asynchronous_stream_at_once(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, STALL))
    async for event in backend_for(emulator).astream(question()):
        if isinstance(event, TextDelta):
            break
    assert await asyncio.to_thread(emulator.wait_for_disconnect)


def test_a_consumer_that_raises_closes_the_stream(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, STALL))

    def consume() -> None:
        for _ in backend_for(emulator).stream(question()):
            raise ConsumerError

    with pytest.raises(ConsumerError):
        consume()
    assert emulator.wait_for_disconnect()


async def test_a_consumer_that_raises_closes_the_asynchronous_stream(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, STALL))

    async def consume() -> None:
        async for _ in backend_for(emulator).astream(question()):
            raise ConsumerError

    with pytest.raises(ConsumerError):
        await consume()
    assert await asyncio.to_thread(emulator.wait_for_disconnect)


@pytest.mark.parametrize("answer", [Answer((STALL,), status=None), event_stream(*BEGINNING, STALL)])
async def test_cancelling_the_task_closes_its_stream(emulator: Emulator, answer: Answer):
    emulator.script(answer)
    task = asyncio.create_task(collected(backend_for(emulator).astream(question())))
    assert await asyncio.to_thread(emulator.wait_for_requests)
    await asyncio.sleep(0.05)  # for the answer to begin
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(emulator.wait_for_disconnect)


async def test_cancelling_the_task_of_a_whole_reply_closes_its_connection(emulator: Emulator):
    emulator.script(Answer((STALL,), status=None))
    task = asyncio.create_task(backend_for(emulator).acomplete(question()))
    assert await asyncio.to_thread(emulator.wait_for_requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(emulator.wait_for_disconnect)


def test_a_stream_that_is_read_to_its_end_is_not_cut(emulator: Emulator, way: str):
    ask(backend_for(emulator), way)
    assert not emulator.wait_for_disconnect(0.1)


def test_a_server_that_keeps_the_stream_open_after_its_end_is_not_waited_for(emulator: Emulator, way: str):
    emulator.script(event_stream(*chunks(completion("Hello there")), "[DONE]", STALL))
    begun = time.monotonic()
    reply = ask(backend_for(emulator), way)
    assert time.monotonic() - begun < 5  # the time-out is 20
    assert reply.text == "Hello there"
    assert emulator.wait_for_disconnect()


def test_what_follows_the_end_mark_is_not_looked_at(emulator: Emulator, way: str):
    emulator.script(
        event_stream(*chunks(completion("Hello there")), "[DONE]", b"data: {broken\n\n", *BEGINNING)
    )
    assert ask(backend_for(emulator), way).text == "Hello there"


def test_an_end_mark_may_be_missing_after_a_reason_to_end(emulator: Emulator, way: str):
    emulator.script(event_stream(*chunks(completion("Hello there"))))
    assert ask(backend_for(emulator), way).finish_reason == "stop"


@pytest.mark.parametrize("end", [(HANG_UP,), ()], ids=["connection cut", "answer ended"])
def test_a_stream_that_ends_too_early_is_an_error_with_what_arrived(emulator: Emulator, way: str, end: tuple):
    emulator.script(event_stream(*BEGINNING, *end))
    with pytest.raises(TruncatedStreamError) as caught:
        ask(backend_for(emulator), way)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"
    assert caught.value.partial.finish_reason is None
    assert len(emulator.requests) == 1


def test_the_events_before_a_cut_are_delivered(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, HANG_UP))
    received = []
    with pytest.raises(TruncatedStreamError):
        received.extend(backend_for(emulator).stream(question()))  # extend keeps what came before the error
    assert [event.text for event in received if isinstance(event, TextDelta)] == ["Hello", " there"]


def test_a_stream_that_stalls_is_an_error_with_what_arrived(emulator: Emulator, way: str):
    emulator.script(event_stream(*BEGINNING, STALL))
    with pytest.raises(RequestTimeoutError) as caught:
        ask(backend_for(emulator, timeout=0.3), way)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"
    assert len(emulator.requests) == 1


def test_the_timeout_is_for_silence_and_not_for_the_whole_stream(emulator: Emulator, way: str):
    slowly = [step for chunk in chunks(completion("one two")) for step in (Wait(0.25), chunk)]
    emulator.script(event_stream(*slowly, "[DONE]"))
    assert ask(backend_for(emulator, timeout=0.6), way).text == "one two"


def test_signs_of_life_keep_a_stream_from_timing_out(emulator: Emulator, way: str):
    waiting = [b": keep-alive\n\n", Wait(0.25)] * 3
    emulator.script(event_stream(*waiting, *chunks(completion("at last")), "[DONE]"))
    assert ask(backend_for(emulator, timeout=0.6), way).text == "at last"


@pytest.mark.parametrize("mark", [b"", b"event: error\n"], ids=["data only", "named error"])
def test_an_error_in_mid_stream_carries_what_arrived(emulator: Emulator, way: str, mark: bytes):
    failure = mark + sse({"error": {"message": "Upstream failed", "code": 502}})
    emulator.script(event_stream(*BEGINNING, failure))
    with pytest.raises(ServerError, match=r"Upstream failed.*\[deepinfra, meta-llama") as caught:
        ask(backend_for(emulator), way)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"
    assert len(emulator.requests) == 1


def test_what_arrives_together_with_a_failure_is_delivered_before_it(emulator: Emulator, way: str):
    together = b"".join(sse(chunk) for chunk in BEGINNING) + sse({"error": {"message": "Upstream failed"}})
    emulator.script(event_stream(together))
    with pytest.raises(ServerError) as caught:
        ask(backend_for(emulator), way)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"


def test_an_unreadable_event_carries_what_arrived(emulator: Emulator, way: str):
    emulator.script(event_stream(*BEGINNING, b"data: {broken\n\n"))
    with pytest.raises(MalformedReplyError, match="broken") as caught:
        ask(backend_for(emulator), way)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"


def test_an_error_behind_a_200_is_an_error(emulator: Emulator):
    for way in WAYS:
        emulator.script(json_answer({"error": {"message": "Upstream failed", "code": 502}}))
        with pytest.raises(ServerError, match="Upstream failed"):
            ask(backend_for(emulator, max_retries=0), way)


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "text/plain", ""]
)
def test_a_stream_that_is_answered_with_json_is_read(emulator: Emulator, way: str, content_type: str):
    body = json.dumps(completion("Hello there"), indent=1).encode()
    for steps in ((body,), (b"\n ", Wait(0.02), body[:30], Wait(0.02), body[30:])):
        emulator.script(Answer(steps, headers={"content-type": content_type}))
        reply = ask(backend_for(emulator), way)
        assert (reply.text, reply.finish_reason) == ("Hello there", "stop")


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain", "application/json", ""])
def test_events_are_read_whatever_they_are_called(emulator: Emulator, way: str, content_type: str):
    events = event_stream(b"\xef\xbb\xbf: hello\n\n", *chunks(completion("Hello there")), "[DONE]")
    emulator.script(Answer(events.steps, headers={"content-type": content_type}))
    assert ask(backend_for(emulator), way).text == "Hello there"


@pytest.mark.parametrize("way", WAYS)
def test_a_web_page_is_no_reply(emulator: Emulator, way: str):
    emulator.script(page("<!doctype html><title>Log in to the hotel's network</title>"))
    with pytest.raises(MalformedReplyError, match="hotel"):
        ask(backend_for(emulator), way)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("way", WAYS)
def test_compression_that_cannot_be_undone_is_an_error_of_ours(emulator: Emulator, way: str):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    emulator.script(Answer((b'{"choices": []}',), headers=headers))
    with pytest.raises(MalformedReplyError, match="compression"):
        ask(backend_for(emulator), way)
    assert len(emulator.requests) == 1


def test_a_failure_closes_the_stream_even_while_the_error_is_kept(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, b"data: {broken\n\n", STALL))
    with pytest.raises(MalformedReplyError) as caught:
        list(backend_for(emulator).stream(question()))
    assert emulator.wait_for_disconnect()
    assert caught.value.__traceback__ is not None  # which holds all that the stream held


async def test_a_failure_closes_the_asynchronous_stream_even_while_the_error_is_kept(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, b"data: {broken\n\n", STALL))
    with pytest.raises(MalformedReplyError) as caught:
        await collected(backend_for(emulator).astream(question()))
    assert await asyncio.to_thread(emulator.wait_for_disconnect)
    assert caught.value.__traceback__ is not None


def test_characters_may_be_cut_in_two_on_their_way(emulator: Emulator, way: str):
    stream = event_stream(*chunks(completion("Grüße 🦙")), "[DONE]")
    everything = b"".join(step for step in stream.steps if isinstance(step, bytes))
    cut = everything.index("🦙".encode()) + 2
    emulator.script(event_stream(everything[:cut], Wait(0.05), everything[cut:]))
    assert ask(backend_for(emulator), way).text == "Grüße 🦙"


@pytest.mark.parametrize("way", WAYS)
def test_every_error_says_where_it_happened(emulator: Emulator, way: str):
    emulator.script(page("<title>nothing</title>"))
    with pytest.raises(LlamaVisionError) as caught:
        ask(backend_for(emulator, "openai-compatible"), way)
    assert (caught.value.provider, caught.value.model) == ("openai-compatible", question().model)


def test_streams_that_stay_open_after_their_end_are_given_up_by_one_thread(emulator: Emulator):
    """A thread per stream to watch over its end cost a fifth of a short stream."""
    emulator.script(*[event_stream(*chunks(completion("Hello")), "[DONE]", STALL) for _ in range(12)])
    backend = backend_for(emulator)

    def watchdogs():
        return [thread for thread in threading.enumerate() if thread.name == "llama-vision drain"]

    began = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(ask, backend, "stream") for _ in range(12)]
        while not any(stream.done() for stream in streams):
            assert len(watchdogs()) <= 1
            time.sleep(0.01)
        assert {stream.result().text for stream in streams} == {"Hello"}
    assert 1 <= time.monotonic() - began < 4
    emulator.script(event_stream(*chunks(completion("And on")), "[DONE]"))
    assert ask(backend, "stream").text == "And on"

"""Carried by aiohttp, asynchronous calls give what they give otherwise, and fail as they fail otherwise."""

import asyncio
from collections.abc import Iterator

import pytest
from httpx_aiohttp import AiohttpTransport

from llama_vision import use_aiohttp
from llama_vision.backends.http.connection_pools import AsyncClientLease
from llama_vision.core.errors import (
    AuthenticationError,
    ConnectionFailedError,
    MalformedReplyError,
    RateLimitError,
    RequestTimeoutError,
    TruncatedStreamError,
)
from tests.backends.http.alone import run_alone
from tests.emulator import (
    HANG_UP,
    NO_ANSWER,
    STALL,
    Answer,
    Emulator,
    chunks,
    completion,
    event_stream,
    page,
    refusal,
)
from tests.emulator.asking import aask, ask, backend_for, collected, question

BEGINNING = list(chunks(completion("Hello there")))[:-1]
REPLIES = {
    "text": completion("Hello! How are you?"),
    "unicode": completion("Grüße, 日本, 🦙\u2028 and \u0085"),
    "calls": completion(calls=[("get_weather", {"city": "Zürich"}), ("get_time", {"zone": "Asia/Tokyo"})]),
    "cut off": completion("A cat sits on", finish_reason="length"),
    "long": completion("word " * 20_000),
}


@pytest.fixture(autouse=True)
def aiohttp() -> Iterator[None]:
    use_aiohttp()
    yield
    use_aiohttp(enabled=False)


@pytest.fixture(params=["acomplete", "astream"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_it_is_aiohttp_that_carries_the_calls():
    async with AsyncClientLease("http://127.0.0.1:9/aiohttp") as client:
        assert isinstance(client._transport, AiohttpTransport)


async def test_httpx_carries_them_again_when_it_is_wanted():
    use_aiohttp(enabled=False)
    async with AsyncClientLease("http://127.0.0.1:9/aiohttp") as client:
        assert not isinstance(client._transport, AiohttpTransport)


@pytest.mark.parametrize("name", REPLIES)
def test_the_reply_is_the_one_that_httpx_brings(emulator: Emulator, way: str, name: str):
    emulator.script(*[REPLIES[name]] * 2)
    backend = backend_for(emulator)
    assert ask(backend, way) == ask(backend, way.removeprefix("a"))
    carried, other = emulator.requests
    assert carried.content == other.content
    for header in ("authorization", "user-agent", "content-type", "accept"):
        assert carried.headers[header] == other.headers[header]


async def test_calls_one_after_the_other_use_one_connection(emulator: Emulator, way: str):
    backend = backend_for(emulator)
    for _ in range(4):
        await aask(backend, way)
    assert emulator.connections == 1


async def test_calls_at_the_same_time_are_never_mixed(emulator: Emulator, way: str):
    emulator.always(lambda received: completion(received.body["messages"][0]["content"]))
    names = [f"coroutine {number}" for number in range(50)]
    replies = await asyncio.gather(*(aask(backend_for(emulator), way, question(name)) for name in names))
    assert [reply.text for reply in replies] == names


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(401), AuthenticationError),
        (refusal(429), RateLimitError),
        (page("<title>Log in to the hotel's network</title>"), MalformedReplyError),
        (NO_ANSWER, ConnectionFailedError),
        (Answer((STALL,), status=None), RequestTimeoutError),
    ],
    ids=["401", "429", "page", "hung up", "stalled"],
)
def test_a_failure_is_the_same_error(emulator: Emulator, way: str, answer: Answer, kind: type):
    emulator.script(answer)
    with pytest.raises(kind) as caught:
        ask(backend_for(emulator, max_retries=0, timeout=0.5), way)
    assert type(caught.value) is kind
    assert len(emulator.requests) == 1


def test_a_passing_failure_is_asked_again(emulator: Emulator, way: str):
    emulator.script(refusal(503, retry_after=0), NO_ANSWER, completion("at last"))
    assert ask(backend_for(emulator), way).text == "at last"
    assert len(emulator.requests) == 3


@pytest.mark.parametrize(("end", "kind"), [(HANG_UP, TruncatedStreamError), (STALL, RequestTimeoutError)])
def test_a_stream_that_ends_too_early_is_an_error_with_what_arrived(emulator: Emulator, end, kind: type):
    emulator.script(event_stream(*BEGINNING, end))
    with pytest.raises(kind) as caught:
        ask(backend_for(emulator, timeout=0.5), "astream")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"


async def test_break_closes_a_stream_at_once(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, STALL))
    async for _ in backend_for(emulator).astream(question()):
        break
    assert await asyncio.to_thread(emulator.wait_for_disconnect)


async def test_cancelling_the_task_closes_its_stream(emulator: Emulator):
    emulator.script(event_stream(*BEGINNING, STALL))
    task = asyncio.create_task(collected(backend_for(emulator).astream(question())))
    assert await asyncio.to_thread(emulator.wait_for_requests)
    await asyncio.sleep(0.05)  # for the answer to begin
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(emulator.wait_for_disconnect)


async def test_a_stream_in_flight_survives_an_aclose(emulator: Emulator):
    backend = backend_for(emulator)
    stream = backend.astream(question())
    await anext(stream)
    await backend.aclose()
    assert (await collected(stream))[-1].reason == "stop"


def test_ten_event_loops_leave_nothing_behind(emulator: Emulator, way: str):
    run_alone(
        emulator,
        f"""
        import llama_vision
        llama_vision.use_aiohttp()
        for _ in range(10):
            assert ask(backend, {way!r}).finish_reason == "stop"
        """,
    )
    assert len(emulator.requests) == 10


def test_without_the_package_the_error_says_what_to_install(emulator: Emulator):
    run_alone(
        emulator,
        """
        import sys
        import llama_vision
        from llama_vision.core.errors import MissingDependencyError

        sys.modules["httpx_aiohttp"] = None  # as Python sees what is not installed
        try:
            llama_vision.use_aiohttp()
        except MissingDependencyError as error:
            assert "llama-vision[aiohttp]" in str(error)
            assert ask(backend, "acomplete").text.startswith("Hello!")
        else:
            raise AssertionError("nothing was said")
        """,
    )

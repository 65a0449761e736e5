"""Servers that keep a call busy without an end: it ends when its time is up, however it is made."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from llama_vision import use_aiohttp
from llama_vision.backends import create_backend
from llama_vision.core.errors import (
    InvalidRequestError,
    LlamaVisionError,
    RequestTimeoutError,
    ServerError,
)
from llama_vision.providers import find_provider
from tests.backends.http.raw_server import RawServer, chat_response
from tests.emulator import STALL, Answer, Emulator, Wait, chunks, completion, event_stream, refusal
from tests.emulator.asking import STREAMED_WAYS, WAYS, ask, backend_for, question

DEADLINE_S = 0.4
PAUSE = Wait(0.05)
BEGINNING = list(chunks(completion("Hello there")))[:-1]
JSON = {"content-type": "application/json"}


def slowly(*parts: bytes, status: int = 200, headers: dict[str, str] = JSON) -> Answer:
    """Send parts with pauses in between."""
    return Answer(tuple(step for part in parts for step in (part, PAUSE)), status, headers)


SCENARIOS = {
    "dribbling body": slowly(*[b" "] * 60),
    "keep-alive comments for ever": event_stream(*[b": keep-alive\n\n", PAUSE] * 60),
    "dribbling error": slowly(*[b"{"] * 60, status=400),
    "dribbling redirect": slowly(*[b" "] * 60, status=302, headers={"location": "/elsewhere"}),
    "no byte": Answer((STALL,), status=None),
    "stall in the middle": event_stream(*BEGINNING, STALL),
}
RAW_SCENARIOS = {
    "slow head": (b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n"),
    "100 Continue for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk's size without an end": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x"),
}
# Each scenario and each style at least once; all of them in `make test-all`.
FAST = {
    *(("dribbling body", "complete"), ("keep-alive comments for ever", "astream")),
    *(("dribbling error", "stream"), ("stall in the middle", "acomplete")),
    *(("slow head", "complete"), ("100 Continue for ever", "acomplete")),
}


def cases(names: object, ways: tuple[str, ...] = WAYS) -> list[object]:
    return [
        pytest.param(name, way, marks=() if (name, way) in FAST else pytest.mark.slow)
        for name in names
        for way in ways
    ]


def for_ever(beginning: bytes, part: bytes, *, after: int = 0):
    """Answer so, after a number of ordinary answers."""

    def answer(server: RawServer, connection: socket.socket) -> None:
        if len(server.requests) <= after:
            connection.sendall(chat_response("Hi"))
            return
        connection.sendall(beginning)
        while not server.leaving.wait(0.05):
            connection.sendall(part)

    return answer


def time_of(backend, way: str) -> tuple[float, LlamaVisionError]:
    began = time.monotonic()
    with pytest.raises(LlamaVisionError) as caught:
        ask(backend, way)
    return time.monotonic() - began, caught.value


@pytest.fixture
def own_clients() -> Iterator[dict]:
    with httpx.Client() as client:
        yield {"http_client": client, "http_async_client": httpx.AsyncClient()}


@pytest.fixture
def aiohttp() -> Iterator[None]:
    use_aiohttp()
    yield
    use_aiohttp(enabled=False)


@pytest.mark.parametrize(("name", "way"), cases(SCENARIOS))
def test_no_server_keeps_a_call_beyond_its_deadline(emulator: Emulator, name: str, way: str):
    emulator.script(SCENARIOS[name])
    seconds, error = time_of(backend_for(emulator, timeout=20, deadline=DEADLINE_S), way)
    assert DEADLINE_S * 0.9 <= seconds < DEADLINE_S * 2
    assert type(error) is InvalidRequestError or "error" not in name  # the status says more than the time
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(("name", "way"), cases(RAW_SCENARIOS))
def test_no_head_without_an_end_keeps_a_call_beyond_its_deadline(name: str, way: str):
    with RawServer(for_ever(*RAW_SCENARIOS[name])) as server:
        seconds, error = time_of(server.backend(timeout=20, deadline=DEADLINE_S), way)
    assert DEADLINE_S * 0.9 <= seconds < DEADLINE_S * 2
    assert isinstance(error, RequestTimeoutError)
    assert "deadline" in str(error)


def test_a_connection_that_was_used_before_keeps_the_time_too():
    with RawServer(for_ever(*RAW_SCENARIOS["slow head"], after=1)) as server:
        backend = server.backend(timeout=20, deadline=DEADLINE_S)
        assert ask(backend, "complete").text == "Hi"
        assert time_of(backend, "complete")[0] < DEADLINE_S * 2
        assert server.num_connections == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), cases(SCENARIOS))
def test_a_client_of_the_users_own_keeps_the_deadline(
    emulator: Emulator, own_clients: dict, name: str, way: str
):
    emulator.script(SCENARIOS[name])
    seconds, _ = time_of(backend_for(emulator, timeout=20, deadline=DEADLINE_S, **own_clients), way)
    assert DEADLINE_S * 0.9 <= seconds < DEADLINE_S * 2


@pytest.mark.parametrize("way", ["stream", "acomplete"])
def test_a_head_without_an_end_does_not_keep_the_users_own_client(own_clients: dict, way: str):
    with RawServer(for_ever(*RAW_SCENARIOS["slow head"])) as server:
        backend = server.backend(timeout=20, deadline=DEADLINE_S, **own_clients)
        assert time_of(backend, way)[0] < DEADLINE_S * 2


@pytest.mark.slow
@pytest.mark.usefixtures("aiohttp")
@pytest.mark.parametrize(("name", "way"), cases(SCENARIOS, ("acomplete", "astream")))
def test_aiohttp_keeps_the_deadline(emulator: Emulator, name: str, way: str):
    emulator.script(SCENARIOS[name])
    seconds, _ = time_of(backend_for(emulator, timeout=20, deadline=DEADLINE_S), way)
    assert DEADLINE_S * 0.9 <= seconds < DEADLINE_S * 2


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_a_look_up_that_hangs_ends_with_the_deadline(way: str, monkeypatch: pytest.MonkeyPatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(5) and [])
    backend = create_backend(
        find_provider("deepinfra"), base_url="https://made-up.example/v1", api_key="k", deadline=DEADLINE_S
    )
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        ask(backend, way)
    assert time.monotonic() - began < 1.5 * DEADLINE_S + 0.2
    released.set()


def test_a_connection_that_comes_too_late_is_closed(emulator: Emulator, monkeypatch: pytest.MonkeyPatch):
    original, opened = socket.create_connection, []

    def late(*args: object, **options: object) -> socket.socket:
        opened.append(original(*args, **options))
        time.sleep(0.5)
        return opened[0]

    monkeypatch.setattr(socket, "create_connection", late)
    with pytest.raises(RequestTimeoutError):
        ask(backend_for(emulator, deadline=0.2, max_retries=0), "complete")
    waited = time.monotonic() + 5
    while opened[0].fileno() != -1 and time.monotonic() < waited:
        time.sleep(0.01)
    assert opened[0].fileno() == -1


@pytest.mark.parametrize("way", ["complete", "astream"])
def test_without_a_deadline_an_answer_takes_twice_the_timeout_at_most(emulator: Emulator, way: str):
    emulator.script(SCENARIOS["dribbling body"])
    seconds, error = time_of(backend_for(emulator, timeout=0.2), way)
    assert 0.35 <= seconds < 0.8
    assert isinstance(error, RequestTimeoutError)
    assert "twice the timeout" in str(error)


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stream_that_goes_on_takes_as_long_as_it_takes(emulator: Emulator, way: str):
    slow = [step for chunk in chunks(completion("1 2 3 4")) for step in (Wait(0.1), chunk)]
    emulator.script(event_stream(*slow, "[DONE]"))
    assert ask(backend_for(emulator, timeout=0.25), way).text == "1 2 3 4"


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_deadline_ends_a_stream_that_goes_on_and_keeps_what_arrived(emulator: Emulator, way: str):
    slow = [step for chunk in chunks(completion("word " * 40)) for step in (PAUSE, chunk)]
    emulator.script(event_stream(*slow, "[DONE]"))
    seconds, error = time_of(backend_for(emulator, deadline=DEADLINE_S), way)
    assert DEADLINE_S * 0.9 <= seconds < DEADLINE_S * 2
    assert error.partial is not None
    assert error.partial.text.startswith("word")


def test_a_consumer_that_takes_its_time_is_no_silence_of_the_server(emulator: Emulator):
    emulator.script(event_stream(*chunks(completion("one two")), "[DONE]"))
    texts = []
    for event in backend_for(emulator, timeout=0.1).stream(question()):
        time.sleep(0.15)
        texts.append(getattr(event, "text", ""))
    assert "".join(texts) == "one two"


@pytest.mark.parametrize("way", ["complete", "astream"])
def test_retries_are_within_the_deadline(emulator: Emulator, way: str):
    emulator.always(refusal(503, retry_after=0.15))
    seconds, error = time_of(backend_for(emulator, deadline=DEADLINE_S, max_retries=100), way)
    assert isinstance(error, ServerError | RequestTimeoutError)  # the latter where it ends within an attempt
    assert seconds < DEADLINE_S * 1.5
    assert 2 <= len(emulator.requests) <= 4


def test_a_retry_that_the_deadline_leaves_no_time_for_is_not_waited_for(emulator: Emulator):
    emulator.script(refusal(503, retry_after=30))
    seconds, error = time_of(backend_for(emulator, deadline=5), "complete")
    assert isinstance(error, ServerError)
    assert seconds < 1


def test_thousands_of_retries_are_no_overflow():
    from llama_vision.backends.http.retry import RetryState

    assert RetryState(attempts_left=1, attempts_made=5000).next_delay(ServerError("busy")) <= 8


async def test_many_calls_keep_their_own_deadlines(emulator: Emulator):
    emulator.always(Answer((STALL,), status=None))
    began = time.monotonic()

    async def fail(deadline: float) -> float:
        with pytest.raises(RequestTimeoutError):
            await backend_for(emulator, deadline=deadline).acomplete(question())
        return time.monotonic() - began

    short, longer = await asyncio.gather(fail(0.2), fail(0.5))
    assert short < 0.45 <= longer

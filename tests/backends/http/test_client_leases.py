"""Closing lets go of connections, those in use as soon as they are not, and the next call makes new ones."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llama_vision import Reply
from llama_vision.backends.http.connection_pools import (
    AsyncClientLease,
    ClientLease,
    close_async,
    close_sync,
)
from tests.backends.http.alone import run_alone
from tests.emulator import Emulator, Wait, chunks, completion, event_stream
from tests.emulator.asking import STREAMED_WAYS, WAYS, aask, ask, backend_for, collected, question

ADDRESS = "http://127.0.0.1:9/leases"  # nothing is sent there
TEXT = "Hello there, how are you?"


def slowly(text: str = TEXT):
    return event_stream(
        *[step for chunk in chunks(completion(text)) for step in (chunk, Wait(0.02))], "[DONE]"
    )


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_after_a_close_the_next_call_makes_a_new_connection(emulator: Emulator, way: str):
    backend = backend_for(emulator)
    for _ in range(2):
        ask(backend, way)
        ask(backend, way)
        backend.close()
    assert emulator.connections == 2


@pytest.mark.parametrize("way", ["acomplete", "astream"])
async def test_after_an_aclose_the_next_call_makes_a_new_connection(emulator: Emulator, way: str):
    backend = backend_for(emulator)
    for _ in range(2):
        await aask(backend, way)
        await aask(backend, way)
        await backend.aclose()
    assert emulator.connections == 2


async def test_aclose_closes_the_synchronous_connections_too(emulator: Emulator):
    backend = backend_for(emulator)
    for _ in range(2):
        await asyncio.to_thread(ask, backend, "complete")
        await backend.aclose()
    assert emulator.connections == 2


async def test_close_leaves_the_connections_of_a_running_loop_alone(emulator: Emulator):
    backend = backend_for(emulator)
    for _ in range(2):
        await aask(backend, "acomplete")
        backend.close()
    assert emulator.connections == 1


def test_a_stream_in_flight_survives_a_close(emulator: Emulator):
    emulator.script(slowly())
    backend = backend_for(emulator)
    stream = backend.stream(question())
    events = [next(stream), next(stream)]
    backend.close()
    ask(backend, "complete")
    reply = Reply.from_events([*events, *stream])
    assert (reply.text, reply.finish_reason) == (TEXT, "stop")
    assert emulator.connections == 2


async def test_an_asynchronous_stream_in_flight_survives_an_aclose(emulator: Emulator):
    emulator.script(slowly())
    backend = backend_for(emulator)
    stream = backend.astream(question())
    events = [await anext(stream), await anext(stream)]
    await backend.aclose()
    await aask(backend, "acomplete")
    reply = Reply.from_events([*events, *(await collected(stream))])
    assert (reply.text, reply.finish_reason) == (TEXT, "stop")
    assert emulator.connections == 2


def test_what_was_let_go_of_is_closed_by_its_last_user():
    with ClientLease(ADDRESS) as first:
        with ClientLease(ADDRESS) as second:
            close_sync(ADDRESS)
        assert first is second
        assert not first.is_closed
        with ClientLease(ADDRESS) as third:
            assert third is not first
    assert first.is_closed
    assert not third.is_closed
    close_sync(ADDRESS)
    assert third.is_closed


async def test_what_a_loop_let_go_of_is_closed_by_its_last_user():
    async with AsyncClientLease(ADDRESS) as first:
        async with AsyncClientLease(ADDRESS) as second:
            await close_async(ADDRESS)
        assert first is second
        assert not first.is_closed
        async with AsyncClientLease(ADDRESS) as third:
            assert third is not first
    assert first.is_closed
    assert not third.is_closed
    await close_async(ADDRESS)
    assert third.is_closed


def test_a_client_is_given_back_even_where_a_call_failed():
    def fail() -> httpx.Client:
        with ClientLease(ADDRESS) as client:
            clients.append(client)
            raise ZeroDivisionError

    clients: list[httpx.Client] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    close_sync(ADDRESS)
    assert clients[0].is_closed


async def test_closing_an_address_leaves_the_others_open():
    with ClientLease(ADDRESS), ClientLease(f"{ADDRESS}/other") as other:
        close_sync(ADDRESS)
    async with AsyncClientLease(ADDRESS), AsyncClientLease(f"{ADDRESS}/other") as asynchronous:
        await close_async(ADDRESS)
    assert not other.is_closed
    assert not asynchronous.is_closed


async def test_closing_what_was_never_used_or_is_closed_already_does_nothing(emulator: Emulator):
    backend = backend_for(emulator, base_url="http://127.0.0.1:9/never")
    for _ in range(2):
        backend.close()
        await backend.aclose()


def test_the_users_own_client_is_not_closed(emulator: Emulator):
    with httpx.Client() as client:
        backend = backend_for(emulator, http_client=client)
        ask(backend, "complete")
        backend.close()
        assert not client.is_closed


async def test_the_users_own_async_client_is_not_closed(emulator: Emulator):
    async with httpx.AsyncClient() as client:
        backend = backend_for(emulator, http_async_client=client)
        await aask(backend, "acomplete")
        await backend.aclose()
        assert not client.is_closed


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_calls_of_many_threads_survive_closes_in_between(emulator: Emulator, way: str):
    backend = backend_for(emulator, max_retries=0)
    done = threading.Event()

    def close_again_and_again() -> None:
        while not done.is_set():
            backend.close()

    closing = threading.Thread(target=close_again_and_again)
    closing.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: ask(backend, way), range(80)))
    finally:
        done.set()
        closing.join()
    assert {reply.finish_reason for reply in replies} == {"stop"}
    assert len(emulator.requests) == 80


@pytest.mark.parametrize("way", ["acomplete", "astream"])
async def test_calls_of_many_coroutines_survive_closes_in_between(emulator: Emulator, way: str):
    backend = backend_for(emulator, max_retries=0)

    async def close_again_and_again() -> None:
        while True:
            await backend.aclose()
            await asyncio.sleep(0.001)

    closing = asyncio.create_task(close_again_and_again())
    replies = await asyncio.gather(*(aask(backend, way) for _ in range(80)))
    closing.cancel()
    assert {reply.finish_reason for reply in replies} == {"stop"}
    assert len(emulator.requests) == 80


@pytest.mark.parametrize("way", WAYS)
def test_closing_leaves_nothing_behind(emulator: Emulator, way: str):
    run_alone(
        emulator,
        f"""
        async def twice():
            for _ in range(2):
                await aask(backend, {way!r})
                await backend.aclose()

        if {way!r}.startswith("a"):
            asyncio.run(twice())
        else:
            ask(backend, {way!r})
        backend.close()
        import llama_vision.backends.http.connection_pools as clients
        assert not clients._sync_pools and not any(loop.pools for loop in clients._loops.values())
        """,
    )


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_a_stream_that_was_left_while_its_client_was_let_go_of_leaves_nothing_behind(
    emulator: Emulator, way: str
):
    run_alone(
        emulator,
        f"""
        async def leave():
            stream = backend.astream(question())
            await anext(stream)
            await backend.aclose()
            await stream.aclose()

        if {way!r} == "astream":
            asyncio.run(leave())
        else:
            stream = backend.stream(question())
            next(stream)
            backend.close()
            stream.close()
        """,
    )

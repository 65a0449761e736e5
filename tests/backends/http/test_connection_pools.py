"""Connections: shared, used again, one pool for each event loop, none left behind."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from llama_vision.backends.http.connection_pools import AsyncClientLease, ClientLease
from tests.backends.http.alone import run_alone
from tests.emulator import Emulator, Wait, chunks, completion, event_stream
from tests.emulator.asking import aask, ask, backend_for

ADDRESS = "http://127.0.0.1:9/v1"  # nothing is sent there

# The child drops its copies of the parent's sockets without closing them, which is not worth a word.
FORKED = ("-W", "error", "-W", "ignore::ResourceWarning", "-X", "dev")


@pytest.mark.parametrize("way", ["acomplete", "astream"])
def test_ten_event_loops_make_ten_requests(emulator: Emulator, way: str):
    backend = backend_for(emulator, max_retries=0)
    for _ in range(10):
        assert ask(backend, way).text == "Hello! How can I help you today?"
    assert len(emulator.requests) == 10


@pytest.mark.parametrize("way", ["acomplete", "astream"])
def test_ten_event_loops_leave_nothing_behind(emulator: Emulator, way: str):
    run_alone(
        emulator,
        f"""
        for _ in range(10):
            assert ask(backend, {way!r}).finish_reason == "stop"
        """,
    )
    assert len(emulator.requests) == 10


def test_event_loops_in_threads_at_the_same_time_leave_nothing_behind(emulator: Emulator):
    run_alone(
        emulator,
        """
        def several():
            for _ in range(4):
                ask(backend, "acomplete")
                ask(backend, "astream")

        threads = [threading.Thread(target=several) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """,
    )
    assert len(emulator.requests) == 32


def test_streams_left_open_at_the_end_leave_nothing_behind(emulator: Emulator):
    run_alone(
        emulator,
        """
        left = []

        async def leave_one_open():
            left.append(backend.astream(question()))
            await anext(left[-1])

        asyncio.run(leave_one_open())
        ask(backend, "complete")
        ask(backend, "stream")
        left.append(backend.stream(question()))
        next(left[-1])
        """,
    )
    assert len(emulator.requests) == 4


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux does")
def test_loops_that_are_closed_without_being_shut_down_do_not_pile_up_connections(emulator: Emulator):
    # As LlamaIndex does in a thread when a loop is running already (llama_index.core.async_utils.asyncio_run).
    run_alone(
        emulator,
        """
        def one():
            loop = asyncio.new_event_loop()
            loop.run_until_complete(aask(backend, "acomplete"))
            loop.close()

        for _ in range(3):
            one()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            one()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before + 2, "connections pile up"
        """,
        "-W",
        "ignore",
    )
    assert len(emulator.requests) == 23


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_calls_one_after_the_other_use_one_connection(emulator: Emulator, way: str):
    backend = backend_for(emulator)
    for _ in range(4):
        ask(backend, way)
    assert emulator.connections == 1


@pytest.mark.parametrize("way", ["acomplete", "astream"])
async def test_calls_one_after_the_other_in_a_loop_use_one_connection(emulator: Emulator, way: str):
    backend = backend_for(emulator)
    for _ in range(4):
        await aask(backend, way)
    assert emulator.connections == 1


def test_backends_share_their_connections(emulator: Emulator):
    for provider in ("deepinfra", "openai-compatible"):
        ask(backend_for(emulator, provider), "complete")
        ask(backend_for(emulator, provider), "stream")
    assert emulator.connections == 1


def test_a_refusal_does_not_cost_the_connection(emulator: Emulator):
    for way in ("complete", "stream"):
        with pytest.raises(Exception, match="Not authenticated"):
            ask(backend_for(emulator, api_key="wrong"), way)
        ask(backend_for(emulator), way)
    assert emulator.connections == 1


async def leased() -> httpx.AsyncClient:
    async with AsyncClientLease(ADDRESS) as client:
        await asyncio.sleep(0)
        return client


def test_there_is_one_client_of_an_address_for_all_threads():
    def lease() -> httpx.Client:
        with ClientLease(ADDRESS) as client:
            return client

    with ThreadPoolExecutor(5) as pool:
        assert len({pool.submit(lease).result() for _ in range(10)}) == 1


async def test_there_is_one_client_in_a_loop_even_for_calls_that_begin_together():
    clients = await asyncio.gather(*(leased() for _ in range(10)))
    assert len(set(clients)) == 1


async def test_every_address_has_a_client_of_its_own():
    with ClientLease(ADDRESS) as one, ClientLease(f"{ADDRESS}/v2") as other:
        assert one is not other
    async with AsyncClientLease(ADDRESS) as one, AsyncClientLease(f"{ADDRESS}/v2") as other:
        assert one is not other


def test_every_loop_has_its_own_client_which_is_closed_with_it():
    clients = [asyncio.run(leased()) for _ in range(2)]
    assert clients[0] is not clients[1]
    assert all(client.is_closed for client in clients)


async def test_waiting_for_one_of_the_users_few_connections_is_no_time_out(emulator: Emulator):
    slowly = [step for chunk in chunks(completion("at last")) for step in (Wait(0.25), chunk)]
    emulator.always(event_stream(*slowly, "[DONE]"))
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
        backend = backend_for(emulator, http_async_client=client, timeout=0.6, max_retries=0)
        replies = await asyncio.gather(*(aask(backend, "astream") for _ in range(2)))
    assert [reply.text for reply in replies] == ["at last"] * 2
    assert emulator.connections == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_both_processes_work(emulator: Emulator):
    run_alone(
        emulator,
        """
        def all_ways():
            for way in ("complete", "acomplete", "stream", "astream"):
                assert ask(backend, way).text.startswith("Hello!")

        all_ways()
        child = os.fork()
        all_ways()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            all_ways()
        """,
        *FORKED,
    )
    assert len(emulator.requests) == 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_leaves_the_connections_of_its_parent_alone(emulator: Emulator):
    run_alone(
        emulator,
        """
        ask(backend, "complete")
        child = os.fork()
        ask(backend, "complete")
        if child:
            assert os.waitpid(child, 0)[1] == 0
            ask(backend, "complete")
        """,
        *FORKED,
    )
    ports = [received.client_port for received in emulator.requests]
    assert len(ports) == 4
    assert sorted(ports.count(port) for port in set(ports)) == [1, 3]

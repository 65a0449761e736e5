"""A caller that leaves closes its connection within a second, however often its task is cancelled."""

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from langchain.agents import create_agent
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core.llms import ChatMessage
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from llama_vision import use_aiohttp
from llama_vision.backends.http import connection_pools
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import STALL, Answer, Emulator, Wait, chunks, completion, event_stream
from tests.emulator.asking import MODEL, aask, backend_for

STREAM = list(chunks(completion("word " * 20)))[:-1]
ENDLESS = event_stream(*[step for chunk in STREAM for step in (chunk, Wait(0.02))], STALL)
HALF_A_BODY = Answer((b'{"id": "1", ', STALL))
ANSWERS = {"no head": Answer((STALL,), status=None), "in the body": HALF_A_BODY, "in the stream": ENDLESS}
CLIENTS = 50


class Weather(BaseModel):
    """The weather of a city."""

    city: str


@pytest.fixture(scope="module")
def provider() -> Iterator[Emulator]:
    """A server whose connections are those of these tests only."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(provider: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    provider.reset()
    yield provider
    provider.reset()
    assert closed(provider)


@pytest.fixture(params=["httpx", pytest.param("aiohttp", marks=pytest.mark.slow)], autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    use_aiohttp(enabled=request.param == "aiohttp")
    yield request.param
    use_aiohttp(enabled=False)


def closed(emulator: Emulator, within: float = 1.0, *, collecting: bool = False) -> bool:
    """Wait until no connection to the emulator is open, idle ones included."""
    deadline = time.monotonic() + within
    while emulator.open_connections and time.monotonic() < deadline:
        if collecting:
            gc.collect()
        time.sleep(0.01)
    return emulator.open_connections == 0


def pooled() -> list[str]:
    """Describe the connections in httpx's pools of all event loops."""
    clients = [pool.client for loop in connection_pools._loops.values() for pool in loop.pools.values()]
    pools = [getattr(client._transport, "_pool", None) for client in clients]
    return [repr(connection) for pool in pools if pool for connection in pool.connections]


async def cancel_again_and_again(emulator: Emulator, asking: Awaitable[Any], times: int) -> None:
    """Cancel a call at each step of the event loop, as AnyIO does with a scope that was cancelled.

    As in a web server, nobody keeps the task afterwards: the traceback of its CancelledError has the frames, and these have
    what LangChain did not close, as it was cancelled once more while it was closing.
    """
    task = asyncio.ensure_future(asking)
    assert await asyncio.to_thread(emulator.wait_for_requests)
    await asyncio.sleep(0.05)  # for the answer to begin
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task], timeout=2)
    assert task.cancelled()


def langchain(emulator: Emulator) -> ChatLlamaVision:
    return ChatLlamaVision(
        provider="deepinfra", model=MODEL, base_url=emulator.base_url, api_key=emulator.api_key
    )


def llamaindex(emulator: Emulator) -> LlamaVision:
    return LlamaVision(
        provider="deepinfra", model=MODEL, api_base=emulator.base_url, api_key=emulator.api_key
    )


def chain(emulator: Emulator) -> Any:
    return ChatPromptTemplate.from_template("{question}") | langchain(emulator) | StrOutputParser()


async def agent_tokens(emulator: Emulator) -> AsyncIterator[str]:
    """As docs/streaming.md has it: LangGraph does not stop its nodes where AnyIO cancels `stream_mode="messages"`."""
    agent = create_agent(langchain(emulator), [])
    async for event in agent.astream_events({"messages": "Hello!"}, version="v2"):
        if event["event"] == "on_chat_model_stream":
            yield event["data"]["chunk"].text


async def agent_updates(emulator: Emulator) -> AsyncIterator[str]:
    async for update in create_agent(langchain(emulator), []).astream({"messages": "Hello!"}):
        yield str(update)


async def exhaust(stream: AsyncIterator[Any] | Awaitable[Any]) -> None:
    if isinstance(stream, Awaitable):
        stream = await stream
    async for _ in stream:
        pass


ASKING: dict[str, Callable[[Emulator], Any]] = {
    "acomplete": lambda emulator: aask(backend_for(emulator), "acomplete"),
    "astream": lambda emulator: aask(backend_for(emulator), "astream"),
    "LangChain ainvoke": lambda emulator: langchain(emulator).ainvoke("Hello!"),
    "LangChain astream": lambda emulator: exhaust(langchain(emulator).astream("Hello!")),
    "chain ainvoke": lambda emulator: chain(emulator).ainvoke("Hello!"),
    "chain astream": lambda emulator: exhaust(chain(emulator).astream("Hello!")),
    "structured astream": lambda emulator: exhaust(
        langchain(emulator).with_structured_output(Weather).astream("Hello!")
    ),
    "agent ainvoke": lambda emulator: create_agent(langchain(emulator), []).ainvoke({"messages": "Hello!"}),
    "agent astream": lambda emulator: exhaust(
        create_agent(langchain(emulator), []).astream({"messages": "Hello!"})
    ),
    "agent's tokens": lambda emulator: exhaust(agent_tokens(emulator)),
    "LlamaIndex achat": lambda emulator: llamaindex(emulator).achat([ChatMessage("Hello!")]),
    "LlamaIndex acomplete": lambda emulator: llamaindex(emulator).acomplete("Hello!"),
    "LlamaIndex astream_chat": lambda emulator: exhaust(
        llamaindex(emulator).astream_chat([ChatMessage("Hello!")])
    ),
    "LlamaIndex astream_complete": lambda emulator: exhaust(llamaindex(emulator).astream_complete("Hello!")),
}


@pytest.mark.parametrize("times", [1, 2, 3, 10])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("way", ["acomplete", "astream"])
async def test_a_task_cancelled_again_and_again_closes_its_connection(
    emulator: Emulator, way: str, answer: str, times: int
):
    emulator.always(ANSWERS[answer])
    await cancel_again_and_again(emulator, ASKING[way](emulator), times)
    assert await asyncio.to_thread(closed, emulator)
    assert pooled() == []


@pytest.mark.parametrize("way", list(ASKING)[2:])
async def test_a_framework_cancelled_twice_closes_its_connection(emulator: Emulator, way: str):
    emulator.always(ENDLESS)
    await cancel_again_and_again(emulator, ASKING[way](emulator), 2)
    assert await asyncio.to_thread(closed, emulator)
    assert pooled() == []


@pytest.mark.parametrize("way", ASKING)
async def test_a_cancel_scope_closes_its_connection(emulator: Emulator, way: str):
    emulator.always(ENDLESS)

    async def leave(scope: anyio.CancelScope) -> None:
        assert await asyncio.to_thread(emulator.wait_for_requests)
        await asyncio.sleep(0.05)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(leave, group.cancel_scope)
        await ASKING[way](emulator)
    assert await asyncio.to_thread(closed, emulator)
    assert pooled() == []


@contextlib.contextmanager
def web_app(emulator: Emulator) -> Iterator[str]:
    """An application that streams to its clients what a model answers."""
    streams = {
        "chain": lambda: chain(emulator).astream("Hello!"),
        "agent": lambda: agent_updates(emulator),
        "agent's tokens": lambda: agent_tokens(emulator),
    }

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(streams[request.path_params["kind"]]())

    config = uvicorn.Config(
        Starlette(routes=[Route("/{kind}", endpoint)]), port=0, lifespan="off", log_config=None, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("kind", ["chain", "agent", "agent's tokens"])
@pytest.mark.slow_beyond(1)
async def test_clients_of_a_web_app_that_leave_at_random_leave_no_connection_open(
    emulator: Emulator, kind: str
):
    emulator.always(ENDLESS)
    moments = random.Random(16)
    at_once = asyncio.Semaphore(8)  # so that they reach the provider on a slow machine too

    async def visit(client: httpx.AsyncClient, url: str) -> None:
        async with at_once:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(moments.uniform(0.02, 0.8)), client.stream("GET", url) as response:
                    await exhaust(response.aiter_bytes())

    with web_app(emulator) as url:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits) as client:
            await asyncio.gather(*(visit(client, f"{url}/{kind}") for _ in range(CLIENTS)))
        # What LangChain was cancelled in closing may be left in cycles of tracebacks and frames. The server notices the last
        # disconnects some time after the clients have left: at once on an idle machine, later on a busy one.
        assert await asyncio.to_thread(closed, emulator, 5.0, collecting=True)
        assert pooled() == []
    assert len(emulator.requests) >= CLIENTS / 5

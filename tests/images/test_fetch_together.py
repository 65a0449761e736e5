"""The images of a request are downloaded together, in no thread of the event loop, and a caller that leaves closes the connections."""

import asyncio
import base64
import contextlib
import socket
import threading
import time

import anyio
import pytest
from langchain_core.messages import HumanMessage

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.fetch import afetch_images, fetch_images
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.langchain import ChatLlamaVision
from llama_vision.testing import ScriptedServer
from tests.images.image_server import PNG, ImageServer, answer

LOCAL = FetchPolicy(private_networks=True)
EMBEDDED = {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}


@pytest.fixture
def server():
    with ImageServer() as server:
        yield server


def fetch(images, *, awaited):
    return asyncio.run(afetch_images(images, LOCAL)) if awaited else fetch_images(images, LOCAL)


both_ways = pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])


@both_ways
def test_they_are_fetched_at_the_same_time_and_stay_in_order(server, awaited):
    embedded = Image(data=PNG, media_type="image/png")
    images = [embedded]
    for number in range(8):
        server.answers[f"/{number}"] = [0.4 - number / 20, answer(PNG + bytes(number))]
        images.append(Image(url=server.url(f"/{number}"), detail="low" if number % 2 else None))
    began = time.perf_counter()
    fetched = fetch(images, awaited=awaited)
    assert time.perf_counter() - began < 2
    assert fetched[0] is embedded
    assert [image.data for image in fetched[1:]] == [PNG + bytes(number) for number in range(8)]
    assert [image.detail for image in fetched[1:3]] == [None, "low"]


@both_ways
def test_the_first_that_fails_ends_the_others(server, awaited):
    server.answers["/slow"] = [answer(PNG)[:40], 60.0]
    server.answers["/none"] = [answer(b"", "404 Not Found")]
    began = time.perf_counter()
    with pytest.raises(ImageError, match=r"^Image 2: The image at .* status 404"):
        fetch([Image(url=server.url("/slow")), Image(url=server.url("/none"))], awaited=awaited)
    assert time.perf_counter() - began < 2


def model(chat, **options):
    """A model at a provider that wants bytes."""
    return ChatLlamaVision(
        provider="ollama",
        model="llama3.2-vision",
        base_url=chat.base_url,
        image_private_networks=True,
        **options,
    )


async def test_slow_addresses_do_not_keep_other_calls_waiting(server):
    server.answers["/slow.png"] = [answer(PNG)[:40], *[piece for _ in range(60) for piece in (b"x", 0.2)]]
    slow = {"type": "image", "url": server.url("/slow.png")}
    with ScriptedServer("Orange.") as chat:
        asker = model(chat)
        waiting = [asyncio.create_task(asker.ainvoke([HumanMessage([slow])])) for _ in range(40)]
        async with asyncio.timeout(20):
            while server.connections < len(waiting):  # noqa: ASYNC110 - counted in threads of the server
                await asyncio.sleep(0.01)
        began = time.perf_counter()
        assert (await asker.ainvoke([HumanMessage([EMBEDDED])])).text == "Orange."
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 2) == "free"
        assert time.perf_counter() - began < 3
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_look_up_that_hangs_takes_no_thread_of_the_loop(monkeypatch):
    released = threading.Event()
    original = socket.getaddrinfo

    def hang(host, *args, **kwargs):
        if str(host).endswith(".example"):
            released.wait(10)
            raise socket.gaierror(8, "unknown")
        return original(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    images = [Image(url=f"http://{number}.example/a.png") for number in range(40)]
    waiting = [asyncio.create_task(afetch_images([image], LOCAL)) for image in images]
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 2) == "free"
    released.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all("can't be looked up" in str(result) for result in results)


async def serve_beginnings(reader, writer, connected):
    connected.add(writer)
    writer.write(answer(PNG)[:60])
    with contextlib.suppress(ConnectionResetError):  # closed with what it had not read
        await writer.drain()
        while await reader.read(1000):
            pass
    connected.discard(writer)
    writer.close()


async def cancelled_twice(url):
    task = asyncio.create_task(afetch_images([Image(url=url)], LOCAL))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_by_anyio(url):
    with anyio.move_on_after(0.1) as scope:
        await afetch_images([Image(url=url)], LOCAL)
    assert scope.cancelled_caught


async def cancelled_at_every_step(url):
    task = asyncio.create_task(afetch_images([Image(url=url)], LOCAL))
    await asyncio.sleep(0.1)
    for _ in range(20):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [cancelled_twice, cancelled_by_anyio, cancelled_at_every_step])
async def test_a_caller_that_leaves_closes_its_connections(leave):
    connected = set()
    server = await asyncio.start_server(
        lambda reader, writer: serve_beginnings(reader, writer, connected), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    async with server:
        await asyncio.gather(*(leave(f"http://127.0.0.1:{port}/a.png") for _ in range(5)))
        deadline = time.monotonic() + 1
        while connected and time.monotonic() < deadline:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        assert not connected

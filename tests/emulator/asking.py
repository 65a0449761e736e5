"""The four ways to ask a backend, made one, so that a test can go through them all."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any

from llama_vision import ChatRequest, Message, Reply, Text
from llama_vision.backends import create_backend
from llama_vision.core.backend import Backend
from llama_vision.core.events import Event
from llama_vision.providers import find_provider
from tests.emulator.server import Emulator

WAYS = ("complete", "acomplete", "stream", "astream")
STREAMED_WAYS = ("stream", "astream")
MODEL = "meta-llama/Llama-3.2-11B-Vision-Instruct"


def backend_for(emulator: Emulator, provider: str = "deepinfra", **options: Any) -> Backend:
    """Open a backend that talks to the emulator."""
    options = {"base_url": emulator.base_url, "api_key": emulator.api_key, "timeout": 20, **options}
    return create_backend(find_provider(provider), **options)


def question(text: str = "Hello!", **more: Any) -> ChatRequest:
    """Ask something short."""
    return ChatRequest(MODEL, (Message("user", (Text(text),)),), **more)


def ask(backend: Backend, way: str, request: ChatRequest | None = None) -> Reply:
    """Ask in one of the `WAYS`; the asynchronous ones in an event loop of their own."""
    request = request or question()
    match way:
        case "complete":
            return backend.complete(request)
        case "stream":
            return Reply.from_events(backend.stream(request))
        case _:
            return asyncio.run(aask(backend, way, request))


async def aask(backend: Backend, way: str, request: ChatRequest | None = None) -> Reply:
    """Ask in one of the asynchronous ways."""
    request = request or question()
    if way == "acomplete":
        return await backend.acomplete(request)
    return Reply.from_events(await collected(backend.astream(request)))


async def collected(events: AsyncIterable[Event]) -> list[Event]:
    """Read a stream to its end."""
    return [event async for event in events]

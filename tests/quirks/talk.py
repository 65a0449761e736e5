"""Asks any provider over a real socket, in each of the four ways, and scripts answers that fit the way."""

import io
from collections.abc import Callable
from typing import Any

import PIL.Image

from llama_vision import ChatRequest, Image, Message, Reply, Text, find_provider
from llama_vision.core.backend import Backend
from llama_vision.core.messages import Part
from tests.emulator import ACCOUNT_ID, Answer, Emulator, Received, event_stream, json_answer
from tests.emulator import asking as usual
from tests.emulator.asking import STREAMED_WAYS, WAYS
from tests.emulator.server import Plan

__all__ = [
    "PNG",
    "STREAMED_WAYS",
    "WAYS",
    "answered",
    "ask",
    "backend",
    "either",
    "image",
    "request",
    "said",
    "told",
]


def image(kind="PNG", size=(30, 20)) -> Image:
    """Make an image."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, "red").save(buffer, kind)
    return Image(buffer.getvalue(), f"image/{kind.lower()}")


PNG = image()


def backend(emulator: Emulator, provider: str, **options: Any) -> Backend:
    """Open a backend of a provider at an emulator."""
    if provider.startswith("cloudflare"):
        options = {"account_id": ACCOUNT_ID, **options}
    return usual.backend_for(emulator, provider, **options)


def request(provider: str, *said: str | Part | Message, **more: Any) -> ChatRequest:
    """Make a request of the provider's first model; texts and images are the user's."""
    messages = [part for part in said if isinstance(part, Message)]
    parts = [Text(part) if isinstance(part, str) else part for part in said if not isinstance(part, Message)]
    if parts or not messages:
        messages.append(Message("user", tuple(parts) or (Text("Hello!"),)))
    # Emulators stand in for endpoints that are one's own: they know DeepInfra's names.
    model = usual.MODEL if provider == "openai-compatible" else find_provider(provider).models[0].id
    return ChatRequest(more.pop("model", model), tuple(messages), **more)


def ask(
    emulator: Emulator,
    provider: str,
    way: str,
    *said: str | Part | Message,
    options: dict[str, Any] | None = None,
    **more: Any,
) -> Reply:
    """Ask in one of the `WAYS`; `options` are the backend's, `more` the request's."""
    return usual.ask(backend(emulator, provider, **(options or {})), way, request(provider, *said, **more))


def answered(
    emulator_of: Callable[[str], Emulator],
    way: str,
    script: Plan,
    provider: str = "deepinfra",
    **more: Any,
) -> Reply:
    """Ask, and get what was scripted."""
    emulator = emulator_of(provider)
    emulator.script(script)
    return ask(emulator, provider, way, **more)


def either(whole: Answer, streamed: Answer) -> Callable[[Received], Answer]:
    """Answer as was asked."""
    return lambda received: streamed if received.streamed else whole


def said(message: dict[str, Any], finish_reason: Any = "stop", **more: Any) -> Callable[[Received], Answer]:
    """Say a chat completions message, whole or as one chunk, with further fields of the body."""
    end = {"index": 0, "finish_reason": finish_reason}
    return either(
        json_answer({"choices": [{**end, "message": message}], **more}),
        event_stream(
            {"choices": [{"index": 0, "delta": message}]},
            {"choices": [{**end, "delta": {}}], **more},
            "[DONE]",
        ),
    )


def told(result: dict[str, Any]) -> Callable[[Received], Answer]:
    """Say a result in Cloudflare's native way: in its envelope, or as one chunk."""
    return either(
        json_answer({"result": result, "success": True, "errors": [], "messages": []}),
        event_stream(result, "[DONE]"),
    )

"""Anything that answers a request: a hosted endpoint, or a model on this machine."""

from collections.abc import AsyncGenerator, Generator
from typing import Protocol

from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest


class Backend(Protocol):
    """What every backend offers. All methods raise the errors of `core/errors.py` and no others.

    Streams begin with `Started` and end with `Finished`. Leaving one early (`break`, `close`) stops the work behind it.
    """

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole."""
        ...

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer piece by piece."""
        ...

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop."""
        ...

    def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer piece by piece, without blocking the event loop."""
        ...

    def close(self) -> None:
        """Let go of what is held for calls to come; a later call takes it up again."""
        ...

    async def aclose(self) -> None:
        """As `close`, and for the running event loop too."""
        ...

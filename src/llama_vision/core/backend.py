"""The protocol of whatever replies to a request: a hosted endpoint, or a model on this machine."""

from collections.abc import AsyncGenerator, Generator
from typing import Protocol, Self

from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest


class Backend(Protocol):
    """What every backend offers. All methods raise the errors of `core/errors.py` and no others.

    Streams begin with `Started` and end with `Finished`. Leaving one early (`break`, `close`) stops the work behind it.
    """

    def complete(self, request: ChatRequest) -> Reply:
        """Return the whole reply."""
        ...

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Yield the events of the reply."""
        ...

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Return the whole reply, without blocking the event loop."""
        ...

    def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Yield the events of the reply, without blocking the event loop."""
        ...

    def close(self) -> None:
        """Close idle connections and free local models; a later call opens and loads new ones."""
        ...

    async def aclose(self) -> None:
        """As `close`, and for the running event loop too."""
        ...


class CloseMixin:
    """Gives a model `close`, `aclose`, `with` and `async with`."""

    def _backend(self) -> Backend:
        raise NotImplementedError

    def close(self) -> None:
        """Close the shared connections to the provider's address; those in use as soon as they are not.

        It need not be called: connections are closed with their event loop and with the process. A later call opens
        new ones. A model on this machine is freed, once all requests are answered, and a later call loads it again.
        """
        self._backend().close()

    async def aclose(self) -> None:
        """As `close`, and for the running event loop too."""
        await self._backend().aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AttachErrorContext:
    """A context manager that adds provider and model to errors; a class, as contextlib's generators are slower."""

    __slots__ = ("_model", "_provider")

    def __init__(self, provider: str, model: str) -> None:
        self._provider = provider
        self._model = model

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LlamaVisionError):
            error.with_context(self._provider, self._model)

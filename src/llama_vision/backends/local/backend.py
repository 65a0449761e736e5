"""The local model behind the protocol of every backend."""

import asyncio
import contextlib
import queue
from collections.abc import AsyncGenerator, Generator

from llama_vision.backends.local.settings import LocalSettings
from llama_vision.backends.local.worker import Outcome, worker_for
from llama_vision.backends.pictures import awith_ready_pictures, with_ready_pictures
from llama_vision.core.errors import LlamaVisionError, UnsupportedInputError
from llama_vision.core.events import Event, Finished
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.checks import check_request
from llama_vision.providers.record import Provider
from llama_vision.providers.shaping import shaped
from llama_vision.toolcalls import TextCallReader


class LocalBackend:
    """Llama 3.2 Vision on this machine. Requests to one model are answered together, as they come."""

    def __init__(
        self, provider: Provider, images: ImageSettings | None = None, local: LocalSettings | None = None
    ) -> None:
        self._provider = provider
        self._images = images or ImageSettings()
        self._local = local or LocalSettings()

    def __repr__(self) -> str:
        return f"LocalBackend({self._provider.name!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        return Reply.from_events(self.stream(request))

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        builder = ReplyBuilder()
        async with contextlib.aclosing(self.astream(request)) as events:
            async for event in events:
                builder.add(event)
        return builder.reply()

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer token by token; see `Backend.stream`."""
        with self._located(request):
            request = self._checked(with_ready_pictures(self._provider, request, self._images))
            outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
            job = worker_for(request.model, self._local).submit(request, outcomes.put)
            try:
                calls = TextCallReader(request.readable_tools)
                event = None
                while not isinstance(event, Finished):
                    event = _event(outcomes.get())
                    yield from calls.read([event])
            finally:
                job.left.set()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer token by token, without blocking the event loop; see `Backend.astream`."""
        with self._located(request):
            request = self._checked(await awith_ready_pictures(self._provider, request, self._images))
            loop = asyncio.get_running_loop()
            outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

            def emit(outcome: Outcome) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
                    loop.call_soon_threadsafe(outcomes.put_nowait, outcome)

            job = worker_for(request.model, self._local).submit(request, emit)
            try:
                calls = TextCallReader(request.readable_tools)
                event = None
                while not isinstance(event, Finished):
                    event = _event(await outcomes.get())
                    for shown in calls.read([event]):
                        yield shown
            finally:
                job.left.set()

    def close(self) -> None:
        """Hold on to the model, which everyone in the process shares."""

    async def aclose(self) -> None:
        """Hold on to the model, which everyone in the process shares."""

    def _checked(self, request: ChatRequest) -> ChatRequest:
        """Refuse what this backend can't do, and put the rest into the order the model reads."""
        check_request(self._provider, request)
        if request.extra_body:
            raise UnsupportedInputError(
                "The local model has no extra_body: there is no server it could go to."
            )
        return shaped(self._provider, request)

    @contextlib.contextmanager
    def _located(self, request: ChatRequest) -> Generator[None]:
        try:
            yield
        except LlamaVisionError as error:
            error.at(self._provider.name, request.model)
            raise


def _event(outcome: Outcome) -> Event:
    if isinstance(outcome, LlamaVisionError):
        raise outcome
    return outcome

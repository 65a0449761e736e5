"""The local model behind the protocol of every backend."""

import asyncio
import contextlib
import queue
from collections.abc import AsyncGenerator, Generator

from llama_vision.adaptation.images import aprepare_request_images, prepare_request_images
from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.adaptation.validate import validate_request
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine_thread import EngineOutput, get_engine_thread
from llama_vision.core.errors import LlamaVisionError, UnsupportedInputError
from llama_vision.core.events import Event, Finished
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.provider import Provider
from llama_vision.toolcalls import TextToolCallExtractor


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
            request = self._adapt(prepare_request_images(self._provider, request, self._images))
            outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
            job = get_engine_thread(request.model, self._local).submit(request, outputs.put)
            try:
                calls = TextToolCallExtractor(request.text_parsed_tools)
                event = None
                while not isinstance(event, Finished):
                    event = _event_or_raise(outputs.get())
                    yield from calls.process([event])
            finally:
                job.cancelled.set()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer token by token, without blocking the event loop; see `Backend.astream`."""
        with self._located(request):
            request = self._adapt(await aprepare_request_images(self._provider, request, self._images))
            loop = asyncio.get_running_loop()
            outcomes: asyncio.Queue[EngineOutput] = asyncio.Queue()

            def emit(outcome: EngineOutput) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
                    loop.call_soon_threadsafe(outcomes.put_nowait, outcome)

            job = get_engine_thread(request.model, self._local).submit(request, emit)
            try:
                calls = TextToolCallExtractor(request.text_parsed_tools)
                event = None
                while not isinstance(event, Finished):
                    outcome = _event_or_raise(await outcomes.get())
                    for event in calls.process([outcome]):
                        yield event
            finally:
                job.cancelled.set()

    def close(self) -> None:
        """Hold on to the model, which everyone in the process shares."""

    async def aclose(self) -> None:
        """Hold on to the model, which everyone in the process shares."""

    def _adapt(self, request: ChatRequest) -> ChatRequest:
        """Refuse what this backend can't do, and put the rest into the order the model reads."""
        validate_request(self._provider, request)
        if request.extra_body:
            raise UnsupportedInputError(
                "The local model has no extra_body: there is no server it could go to."
            )
        return reorder_messages(self._provider, request)

    @contextlib.contextmanager
    def _located(self, request: ChatRequest) -> Generator[None]:
        try:
            yield
        except LlamaVisionError as error:
            error.with_context(self._provider.name, request.model)
            raise


def _event_or_raise(outcome: EngineOutput) -> Event:
    if isinstance(outcome, LlamaVisionError):
        raise outcome
    return outcome

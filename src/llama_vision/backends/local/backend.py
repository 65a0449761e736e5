"""The local backend: the model on this machine, behind the protocol of every backend."""

import asyncio
import contextlib
import queue
from collections.abc import AsyncGenerator, Generator

from llama_vision.adaptation.images import locate
from llama_vision.adaptation.pipeline import AdaptedRequest, aadapt_request, adapt_request
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine_thread import EngineOutput, get_engine_thread
from llama_vision.core.backend import AttachErrorContext
from llama_vision.core.errors import ImageError, LlamaVisionError
from llama_vision.core.events import Event, Finished
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.provider import Provider
from llama_vision.toolcalls.event_filter import TextToolCallExtractor


class LocalBackend:
    """Llama 3.2 Vision on this machine. Requests to one model are batched continuously."""

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
        with AttachErrorContext(self._provider.name, request.model):
            adapted = adapt_request(self._provider, request, self._images)
            outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
            job = get_engine_thread(request.model, self._local).submit(adapted.request, outputs.put)
            try:
                calls = TextToolCallExtractor(adapted.text_parsed_tools)
                event = None
                while not isinstance(event, Finished):
                    event = _event_or_raise(outputs.get(), adapted)
                    yield from calls.process([event])
            finally:
                job.cancelled.set()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer token by token, without blocking the event loop; see `Backend.astream`."""
        with AttachErrorContext(self._provider.name, request.model):
            adapted = await aadapt_request(self._provider, request, self._images)
            loop = asyncio.get_running_loop()
            outputs: asyncio.Queue[EngineOutput] = asyncio.Queue()

            def emit(output: EngineOutput) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits
                    loop.call_soon_threadsafe(outputs.put_nowait, output)

            job = get_engine_thread(request.model, self._local).submit(adapted.request, emit)
            try:
                calls = TextToolCallExtractor(adapted.text_parsed_tools)
                event = None
                while not isinstance(event, Finished):
                    event = _event_or_raise(await outputs.get(), adapted)
                    for parsed in calls.process([event]):
                        yield parsed
            finally:
                job.cancelled.set()

    def close(self) -> None:
        """Do nothing: the whole process shares the model."""

    async def aclose(self) -> None:
        """Do nothing: the whole process shares the model."""


def _event_or_raise(output: EngineOutput, adapted: AdaptedRequest) -> Event:
    if isinstance(output, ImageError):
        locate(output, adapted.image_locations)
    if isinstance(output, LlamaVisionError):
        raise output
    return output

"""The local model behind the protocol of every backend."""

import asyncio
import contextlib
import queue
from collections.abc import AsyncGenerator, Generator

from llama_vision.backends.local.worker import Outcome, worker_for
from llama_vision.core.errors import LlamaVisionError, UnsupportedInputError
from llama_vision.core.events import Event, Finished
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.providers.checks import check_request
from llama_vision.providers.record import Provider


class LocalBackend:
    """Llama 3.2 Vision on this machine. Requests to one model are answered one after the other."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

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
            self._check(request)
            outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
            job = worker_for(request.model).submit(request, outcomes.put)
            try:
                event = None
                while not isinstance(event, Finished):
                    event = _event(outcomes.get())
                    yield event
            finally:
                job.left.set()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer token by token, without blocking the event loop; see `Backend.astream`."""
        with self._located(request):
            self._check(request)
            loop = asyncio.get_running_loop()
            outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

            def emit(outcome: Outcome) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
                    loop.call_soon_threadsafe(outcomes.put_nowait, outcome)

            job = worker_for(request.model).submit(request, emit)
            try:
                event = None
                while not isinstance(event, Finished):
                    event = _event(await outcomes.get())
                    yield event
            finally:
                job.left.set()

    def _check(self, request: ChatRequest) -> None:
        """Refuse what this backend can't do."""
        check_request(self._provider, request)
        refused = {
            "frequency_penalty": request.sampling.frequency_penalty is not None,
            "presence_penalty": request.sampling.presence_penalty is not None,
            "extra_body": bool(request.extra_body),
            "response_format": request.response_format is not None and request.response_format.type != "text",
            "tool_choice": request.tool_choice is not None
            and request.tool_choice.mode in ("required", "named"),
        }
        if names := [name for name, is_set in refused.items() if is_set]:
            raise UnsupportedInputError(
                f"The local model has no way to follow: {', '.join(names)}. Leave it out."
            )

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

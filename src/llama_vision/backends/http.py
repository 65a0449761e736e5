"""Drives a dialect over HTTP. The synchronous and the asynchronous half differ only in the lines that wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from functools import lru_cache

import httpx

from llama_vision.backends.call import Call, Settings
from llama_vision.backends.clients import AsyncLease, close_async, close_sync, sync_client
from llama_vision.backends.draining import adrain, drain
from llama_vision.backends.failures import Located, Partial, Transport
from llama_vision.backends.pictures import awith_ready_pictures, with_ready_pictures
from llama_vision.core.errors import ConfigurationError, LlamaVisionError
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.dialect import Dialect
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.record import Provider


class HttpBackend:
    """A hosted model.

    It holds no connection: pools are shared by the whole process (`backends/clients.py`), unless clients of the
    user's own are given.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        dialect: Dialect,
        base_url: str,
        api_key: str | None,
        account_id: str | None,
        accept_licence: bool,
        timeout: float | httpx.Timeout | None,
        max_retries: int,
        headers: Mapping[str, str],
        images: ImageSettings | None = None,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._settings = Settings(
            provider=provider,
            dialect=dialect,
            base_url=base_url,
            api_key=api_key,
            account_id=account_id,
            accept_licence=accept_licence,
            # Waiting for a free connection is waiting for one's own calls, and no failure of the provider.
            timeout=timeout if isinstance(timeout, httpx.Timeout) else _timeout(timeout),
            max_retries=max_retries,
            headers=_checked_headers(headers),
        )
        self._images = images or ImageSettings()
        self._client = client
        self._async_client = async_client

    def __repr__(self) -> str:
        return f"HttpBackend({self._settings.provider.name!r}, {self._settings.base_url!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        with self._located(request), self._lease() as client:
            call = self._call(request, stream=False)
            while True:
                try:
                    with Transport():
                        response = client.send(call.build(self._client))
                    return _whole_reply(call, response)
                except LlamaVisionError as error:
                    self._recover(call, error, client)

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        with self._located(request):
            call = await self._acall(request, stream=False)
            async with self._alease() as client:
                while True:
                    try:
                        with Transport():
                            response = await client.send(call.build(self._async_client))
                        return _whole_reply(call, response)
                    except LlamaVisionError as error:
                        await self._arecover(call, error, client)

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer piece by piece; see `Backend.stream`."""
        with self._located(request), self._lease() as client:
            call = self._call(request, stream=True)
            with contextlib.closing(self._open(call, client)) as response:
                reader, chunks = call.reader(response), response.iter_bytes()
                with Partial(reader):
                    for received in chunks:
                        yield from reader.feed(received)
                        if reader.done:
                            break
                    yield from reader.close()
                if not reader.cut:
                    drain(chunks, response)

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer piece by piece, without blocking the event loop; see `Backend.astream`."""
        with self._located(request):
            call = await self._acall(request, stream=True)
            # No async generator in here beside our own: a loop that shuts down closes all of them at once.
            async with (
                self._alease() as client,
                contextlib.aclosing(await self._aopen(call, client)) as response,
            ):
                reader, chunks = call.reader(response), response.aiter_bytes()
                with Partial(reader):
                    async for received in chunks:
                        for event in reader.feed(received):
                            yield event
                        if reader.done:
                            break
                    for event in reader.close():
                        yield event
                if not reader.cut:
                    await adrain(chunks)

    def accept_licence(self, request: ChatRequest) -> None:
        """Accept the licence of the model that a request names, on behalf of the account.

        What the provider answers is not documented: whether it counted shows in the next call.

        Raises:
            StatusError: The provider refused, for instance because of the key.
            ConnectionFailedError: It could not be reached.

        """
        with self._located(request), self._lease() as client:
            self._agree(Call(self._settings, request, stream=False), client)

    def close(self) -> None:
        """Close the shared connections to this address; those in use as soon as they are not."""
        close_sync(self._settings.base_url)

    async def aclose(self) -> None:
        """As `close`, and for the running event loop too."""
        self.close()
        await close_async(self._settings.base_url)

    def _call(self, request: ChatRequest, *, stream: bool) -> Call:
        request = with_ready_pictures(self._settings.provider, request, self._images)
        return Call(self._settings, request, stream=stream)

    async def _acall(self, request: ChatRequest, *, stream: bool) -> Call:
        request = await awith_ready_pictures(self._settings.provider, request, self._images)
        return Call(self._settings, request, stream=stream)

    def _lease(self) -> contextlib.AbstractContextManager[httpx.Client]:
        return contextlib.nullcontext(self._client) if self._client else sync_client(self._settings.base_url)

    def _alease(self) -> contextlib.AbstractAsyncContextManager[httpx.AsyncClient]:
        if self._async_client:
            return contextlib.nullcontext(self._async_client)
        return AsyncLease(self._settings.base_url)

    def _open(self, call: Call, client: httpx.Client) -> httpx.Response:
        """Send a streamed call until it is answered with a success. Whoever asked for the answer closes it."""
        while True:
            try:
                with Transport():
                    response = client.send(call.build(self._client), stream=True)
                    if not response.is_success:
                        with contextlib.closing(response):
                            response.read()
                        raise call.error(response)
                    return response
            except LlamaVisionError as error:
                self._recover(call, error, client)

    async def _aopen(self, call: Call, client: httpx.AsyncClient) -> httpx.Response:
        """As `_open`."""
        while True:
            try:
                with Transport():
                    response = await client.send(call.build(self._async_client), stream=True)
                    if not response.is_success:
                        async with contextlib.aclosing(response):
                            await response.aread()
                        raise call.error(response)
                    return response
            except LlamaVisionError as error:
                await self._arecover(call, error, client)

    def _recover(self, call: Call, error: LlamaVisionError, client: httpx.Client) -> None:
        """Do what has to be done before the call is made again, or raise the error."""
        step = call.step_after(error)
        if step.accept_licence:
            self._agree(call, client)
        time.sleep(step.delay)

    async def _arecover(self, call: Call, error: LlamaVisionError, client: httpx.AsyncClient) -> None:
        """As `_recover`."""
        step = call.step_after(error)
        if step.accept_licence:
            with Transport():
                _check_agreed(call, await client.send(call.build_agreement(self._async_client)))
        await asyncio.sleep(step.delay)

    def _agree(self, call: Call, client: httpx.Client) -> None:
        with Transport():
            _check_agreed(call, client.send(call.build_agreement(self._client)))

    def _located(self, request: ChatRequest) -> Located:
        return Located(self._settings.provider.name, request.model)


@lru_cache(maxsize=16)
def _timeout(seconds: float | None) -> httpx.Timeout:
    return httpx.Timeout(seconds, pool=None)


def _whole_reply(call: Call, response: httpx.Response) -> Reply:
    if not response.is_success:
        raise call.error(response)
    reader = call.reader(response)
    with Partial(reader):
        return reader.read_whole(response.content)


def _check_agreed(call: Call, response: httpx.Response) -> None:
    """Look at the answer to an agreement no closer than for a wrong key: only the next call tells what it was worth."""
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.TOO_MANY_REQUESTS):
        raise call.error(response)


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Refuse what httpx would refuse later, with an error that shows it: a header may hold a key."""
    for name, value in headers.items():
        if not ((name + value).isascii() and (name + value).isprintable()):
            raise ConfigurationError(
                f"The header {name!r} holds a line break or a letter that no header can have."
            )
    return dict(headers)

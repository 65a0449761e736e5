"""Drives a dialect over HTTP. The synchronous and the asynchronous half differ only in the lines that wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from functools import lru_cache

import httpx

from llama_vision.adaptation.images import aprepare_request_images, prepare_request_images
from llama_vision.backends.http.call import HttpConfig, PreparedCall
from llama_vision.backends.http.connection_pools import (
    AsyncClientLease,
    close_async,
    close_sync,
    lease_client,
)
from llama_vision.backends.http.drain import adrain, drain
from llama_vision.backends.http.error_mapping import (
    AttachErrorContext,
    AttachPartialReply,
    MapTransportErrors,
)
from llama_vision.core.errors import ConfigurationError, LlamaVisionError
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.dialect import Dialect
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.provider import Provider


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
        accept_license: bool,
        timeout: float | httpx.Timeout | None,
        max_retries: int,
        headers: Mapping[str, str],
        images: ImageSettings | None = None,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._settings = HttpConfig(
            provider=provider,
            dialect=dialect,
            base_url=base_url,
            api_key=api_key,
            account_id=account_id,
            accept_license=accept_license,
            # Waiting for a free connection is waiting for one's own calls, and no failure of the provider.
            timeout=timeout if isinstance(timeout, httpx.Timeout) else _timeout(timeout),
            max_retries=max_retries,
            headers=_validate_headers(headers),
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
                    with MapTransportErrors():
                        response = client.send(call.build(self._client))
                    return _read_reply(call, response)
                except LlamaVisionError as error:
                    self._handle_failure(call, error, client)

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        with self._located(request):
            call = await self._acall(request, stream=False)
            async with self._alease() as client:
                while True:
                    try:
                        with MapTransportErrors():
                            response = await client.send(call.build(self._async_client))
                        return _read_reply(call, response)
                    except LlamaVisionError as error:
                        await self._ahandle_failure(call, error, client)

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer piece by piece; see `Backend.stream`."""
        with self._located(request), self._lease() as client:
            call = self._call(request, stream=True)
            with contextlib.closing(self._send_stream(call, client)) as response:
                reader, chunks = call.open_reply(response), response.iter_bytes()
                with AttachPartialReply(reader):
                    for received in chunks:
                        yield from reader.feed(received)
                        if reader.done:
                            break
                    yield from reader.close()
                if not reader.stopped_early:
                    drain(chunks, response)

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer piece by piece, without blocking the event loop; see `Backend.astream`."""
        with self._located(request):
            call = await self._acall(request, stream=True)
            # No async generator in here beside our own: a loop that shuts down closes all of them at once.
            async with (
                self._alease() as client,
                contextlib.aclosing(await self._asend_stream(call, client)) as response,
            ):
                reader, chunks = call.open_reply(response), response.aiter_bytes()
                with AttachPartialReply(reader):
                    async for received in chunks:
                        for event in reader.feed(received):
                            yield event
                        if reader.done:
                            break
                    for event in reader.close():
                        yield event
                if not reader.stopped_early:
                    await adrain(chunks)

    def accept_license(self, request: ChatRequest) -> None:
        """Accept the license of the model that a request names, on behalf of the account.

        What the provider answers is not documented: whether it counted shows in the next call.

        Raises:
            StatusError: The provider refused, for instance because of the key.
            ConnectionFailedError: It could not be reached.

        """
        with self._located(request), self._lease() as client:
            self._accept_license(PreparedCall(self._settings, request, stream=False), client)

    def close(self) -> None:
        """Close the shared connections to this address; those in use as soon as they are not."""
        close_sync(self._settings.base_url)

    async def aclose(self) -> None:
        """As `close`, and for the running event loop too."""
        self.close()
        await close_async(self._settings.base_url)

    def _call(self, request: ChatRequest, *, stream: bool) -> PreparedCall:
        request = prepare_request_images(self._settings.provider, request, self._images)
        return PreparedCall(self._settings, request, stream=stream)

    async def _acall(self, request: ChatRequest, *, stream: bool) -> PreparedCall:
        request = await aprepare_request_images(self._settings.provider, request, self._images)
        return PreparedCall(self._settings, request, stream=stream)

    def _lease(self) -> contextlib.AbstractContextManager[httpx.Client]:
        return contextlib.nullcontext(self._client) if self._client else lease_client(self._settings.base_url)

    def _alease(self) -> contextlib.AbstractAsyncContextManager[httpx.AsyncClient]:
        if self._async_client:
            return contextlib.nullcontext(self._async_client)
        return AsyncClientLease(self._settings.base_url)

    def _send_stream(self, call: PreparedCall, client: httpx.Client) -> httpx.Response:
        """Send a streamed call until it is answered with a success. Whoever asked for the answer closes it."""
        while True:
            try:
                with MapTransportErrors():
                    response = client.send(call.build(self._client), stream=True)
                    if not response.is_success:
                        with contextlib.closing(response):
                            response.read()
                        raise call.error_from_response(response)
                    return response
            except LlamaVisionError as error:
                self._handle_failure(call, error, client)

    async def _asend_stream(self, call: PreparedCall, client: httpx.AsyncClient) -> httpx.Response:
        """As `_send_stream`."""
        while True:
            try:
                with MapTransportErrors():
                    response = await client.send(call.build(self._async_client), stream=True)
                    if not response.is_success:
                        async with contextlib.aclosing(response):
                            await response.aread()
                        raise call.error_from_response(response)
                    return response
            except LlamaVisionError as error:
                await self._ahandle_failure(call, error, client)

    def _handle_failure(self, call: PreparedCall, error: LlamaVisionError, client: httpx.Client) -> None:
        """Do what has to be done before the call is made again, or raise the error."""
        step = call.next_action(error)
        if step.accept_license:
            self._accept_license(call, client)
        time.sleep(step.delay)

    async def _ahandle_failure(
        self, call: PreparedCall, error: LlamaVisionError, client: httpx.AsyncClient
    ) -> None:
        """As `_handle_failure`."""
        step = call.next_action(error)
        if step.accept_license:
            with MapTransportErrors():
                _check_license_response(
                    call, await client.send(call.build_license_request(self._async_client))
                )
        await asyncio.sleep(step.delay)

    def _accept_license(self, call: PreparedCall, client: httpx.Client) -> None:
        with MapTransportErrors():
            _check_license_response(call, client.send(call.build_license_request(self._client)))

    def _located(self, request: ChatRequest) -> AttachErrorContext:
        return AttachErrorContext(self._settings.provider.name, request.model)


@lru_cache(maxsize=16)
def _timeout(seconds: float | None) -> httpx.Timeout:
    return httpx.Timeout(seconds, pool=None)


def _read_reply(call: PreparedCall, response: httpx.Response) -> Reply:
    if not response.is_success:
        raise call.error_from_response(response)
    reader = call.open_reply(response)
    with AttachPartialReply(reader):
        return reader.decode_body(response.content)


def _check_license_response(call: PreparedCall, response: httpx.Response) -> None:
    """Look at the answer to an agreement no closer than for a wrong key: only the next call tells what it was worth."""
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.TOO_MANY_REQUESTS):
        raise call.error_from_response(response)


def _validate_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Refuse what httpx would refuse later, with an error that shows it: a header may hold a key."""
    for name, value in headers.items():
        if not ((name + value).isascii() and (name + value).isprintable()):
            raise ConfigurationError(
                f"The header {name!r} holds a line break or a letter that no header can have."
            )
    return dict(headers)

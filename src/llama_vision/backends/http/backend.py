"""The HTTP backend: sends a dialect's requests with httpx. Sync and async differ only in the lines that await."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator

import httpx

from llama_vision.adaptation.pipeline import aadapt_request, adapt_request
from llama_vision.backends.http.call import HttpConfig, PreparedCall, parse_url
from llama_vision.backends.http.cancellation import CancelOnce, Closing, cancel_once
from llama_vision.backends.http.connection_pools import (
    AsyncClientLease,
    close_async,
    close_sync,
    lease_client,
)
from llama_vision.backends.http.drain import adrain, drain
from llama_vision.backends.http.error_mapping import (
    AttachPartialReply,
    MapTransportErrors,
)
from llama_vision.backends.http.response_body import aread_body, limit_decompression, read_body
from llama_vision.core.backend import AttachErrorContext
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest


class HttpBackend:
    """A hosted model.

    It holds no connection: pools are shared by the whole process (`connection_pools.py`), unless the user's own clients
    are given.
    """

    def __init__(
        self,
        config: HttpConfig,
        *,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self._async_client = async_client

    def __repr__(self) -> str:
        return f"HttpBackend({self._config.provider.name!r}, {self._config.base_url!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        with self._error_context(request), self._lease() as client:
            call = self._prepare(request, stream=False)
            while True:
                try:
                    with MapTransportErrors():
                        response = client.send(call.build(self._client), stream=True)
                        body = read_body(response)
                    return _decode_reply(call, response, body)
                except LlamaVisionError as error:
                    self._handle_failure(call, error, client)

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        with self._error_context(request):
            call = await self._aprepare(request, stream=False)
            async with self._alease() as client:
                while True:
                    try:
                        with MapTransportErrors():
                            response = await cancel_once(
                                client.send(call.build(self._async_client), stream=True)
                            )
                            body = await cancel_once(aread_body(response))
                        return _decode_reply(call, response, body)
                    except LlamaVisionError as error:
                        await self._ahandle_failure(call, error, client)

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer as a stream of events; see `Backend.stream`."""
        with self._error_context(request), self._lease() as client:
            call = self._prepare(request, stream=True)
            with contextlib.closing(self._send_stream(call, client)) as response:
                reply = call.open_reply(response)
                chunks = limit_decompression(response).iter_bytes()
                with AttachPartialReply(reply):
                    for chunk in chunks:
                        yield from reply.feed(chunk)
                        if reply.done:
                            break
                    yield from reply.close()
                if not reply.stopped_early:
                    drain(chunks, response)

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer as a stream of events, without blocking the event loop; see `Backend.astream`."""
        with self._error_context(request):
            call = await self._aprepare(request, stream=True)
            # No other async generator inside this one: a loop that shuts down closes all of them at once.
            async with (
                self._alease() as client,
                Closing(await self._asend_stream(call, client)) as response,
            ):
                reply = call.open_reply(response)
                chunks = CancelOnce(limit_decompression(response).aiter_bytes())
                with AttachPartialReply(reply):
                    async for chunk in chunks:
                        for event in reply.feed(chunk):
                            yield event
                        if reply.done:
                            break
                    for event in reply.close():
                        yield event
                if not reply.stopped_early:
                    await adrain(chunks)

    def accept_license(self, request: ChatRequest) -> None:
        """Accept the license of the request's model on behalf of the account.

        The provider does not document its response: whether it worked shows in the next call.

        Raises:
            StatusError: The provider refused, for example because of the key.
            ConnectionFailedError: It could not be reached.
        """
        with self._error_context(request), self._lease() as client:
            self._accept_license(self._prepare(request, stream=False), client)

    def close(self) -> None:
        """Close the shared connections to this address; those in use as soon as they are not."""
        close_sync(self._config.base_url)

    async def aclose(self) -> None:
        """As `close`, and for the running event loop too."""
        self.close()
        await close_async(self._config.base_url)

    def _prepare(self, request: ChatRequest, *, stream: bool) -> PreparedCall:
        config = self._config
        parse_url(config.base_url)  # refused before an image is fetched
        adapted = adapt_request(
            config.provider, request, config.images, api_key=config.api_key, account_id=config.account_id
        )
        return PreparedCall(config, adapted, stream=stream)

    async def _aprepare(self, request: ChatRequest, *, stream: bool) -> PreparedCall:
        config = self._config
        parse_url(config.base_url)  # refused before an image is fetched
        adapted = await aadapt_request(
            config.provider, request, config.images, api_key=config.api_key, account_id=config.account_id
        )
        return PreparedCall(config, adapted, stream=stream)

    def _lease(self) -> contextlib.AbstractContextManager[httpx.Client]:
        return contextlib.nullcontext(self._client) if self._client else lease_client(self._config.base_url)

    def _alease(self) -> contextlib.AbstractAsyncContextManager[httpx.AsyncClient]:
        if self._async_client:
            return contextlib.nullcontext(self._async_client)
        return AsyncClientLease(self._config.base_url)

    def _send_stream(self, call: PreparedCall, client: httpx.Client) -> httpx.Response:
        """Send a streamed call, with retries, until it succeeds. The caller closes the response."""
        while True:
            try:
                with MapTransportErrors():
                    response = client.send(call.build(self._client), stream=True)
                    if not response.is_success:
                        raise call.error_from_response(response, read_body(response))
                    return response
            except LlamaVisionError as error:
                self._handle_failure(call, error, client)

    async def _asend_stream(self, call: PreparedCall, client: httpx.AsyncClient) -> httpx.Response:
        """As `_send_stream`."""
        while True:
            try:
                with MapTransportErrors():
                    response = await cancel_once(client.send(call.build(self._async_client), stream=True))
                    if not response.is_success:
                        body = await cancel_once(aread_body(response))
                        raise call.error_from_response(response, body)
                    return response
            except LlamaVisionError as error:
                await self._ahandle_failure(call, error, client)

    def _handle_failure(self, call: PreparedCall, error: LlamaVisionError, client: httpx.Client) -> None:
        """Prepare and await the next attempt, or raise the error."""
        action = call.next_action(error)
        if action.accept_license:
            self._accept_license(call, client)
        time.sleep(action.delay)

    async def _ahandle_failure(
        self, call: PreparedCall, error: LlamaVisionError, client: httpx.AsyncClient
    ) -> None:
        """As `_handle_failure`."""
        action = call.next_action(error)
        if action.accept_license:
            with MapTransportErrors():
                response = await cancel_once(
                    client.send(call.build_license_request(self._async_client), stream=True)
                )
                _check_license_response(call, response, await cancel_once(aread_body(response)))
        await asyncio.sleep(action.delay)

    def _accept_license(self, call: PreparedCall, client: httpx.Client) -> None:
        with MapTransportErrors():
            response = client.send(call.build_license_request(self._client), stream=True)
            _check_license_response(call, response, read_body(response))

    def _error_context(self, request: ChatRequest) -> AttachErrorContext:
        return AttachErrorContext(self._config.provider.name, request.model)


def _decode_reply(call: PreparedCall, response: httpx.Response, body: bytes) -> Reply:
    if not response.is_success:
        raise call.error_from_response(response, body)
    reply = call.open_reply(response)
    with AttachPartialReply(reply):
        return reply.decode_body(body)


def _check_license_response(call: PreparedCall, response: httpx.Response, body: bytes) -> None:
    """Raise for a wrong key or a rate limit only: whether the license was accepted shows in the next call."""
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.TOO_MANY_REQUESTS):
        raise call.error_from_response(response, body)

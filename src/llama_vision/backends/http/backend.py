"""The HTTP backend: sends a dialect's requests with httpx. Sync and async differ only in the lines that await."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import replace

import httpx

from llama_vision.adaptation.pipeline import aadapt_request, adapt_request
from llama_vision.backends.http.call import HttpConfig, PreparedCall
from llama_vision.backends.http.cancellation import CancelOnce, Closing, cancel_once
from llama_vision.backends.http.connection_pools import (
    AsyncClientLease,
    ClientLease,
    close_async,
    close_sync,
    keeps_time,
)
from llama_vision.backends.http.error_mapping import (
    AttachPartialReply,
    MapTransportErrors,
    map_broken_body,
)
from llama_vision.backends.http.exchange import TimedChunks, current_exchange
from llama_vision.backends.http.response_body import limit_decompression
from llama_vision.backends.http.watchdog import watch
from llama_vision.core.backend import AttachErrorContext
from llama_vision.core.errors import LlamaVisionError, MalformedReplyError, StatusError
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.credentials import aask_for_key, ask_for_key

_MAX_ERROR_BYTES = 2**20
"""What follows in the body of an error is left out: the status and the beginning say what is wrong."""
_MAX_FILE_BYTES = 2**30
_NOT_WATCHED = contextlib.nullcontext()


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

    @property
    def config(self) -> HttpConfig:
        """Its configuration."""
        return self._config

    def __repr__(self) -> str:
        return f"HttpBackend({self._config.provider.name!r}, {self._config.base_url!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        with self._error_context(request), self._lease() as client:
            call = self._prepare(request, stream=False)
            with self._watch(call), contextlib.closing(self._open(call, client)) as response:
                reply = call.open_reply(response)
                with AttachPartialReply(reply, call.exchange):
                    for chunk in limit_decompression(response).iter_bytes():
                        reply.add_to_body(chunk)
                        call.exchange.check()
                    return reply.decode_body()

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        with self._error_context(request):
            call = await self._aprepare(request, stream=False)
            async with self._alease() as client, Closing(await self._aopen(call, client)) as response:
                reply = call.open_reply(response)
                with AttachPartialReply(reply, call.exchange):
                    async for chunk in _chunks(call, response, client):
                        reply.add_to_body(chunk)
                    return reply.decode_body()

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer as a stream of events; see `Backend.stream`."""
        with self._error_context(request), self._lease() as client:
            call = self._prepare(request, stream=True)
            with self._watch(call), contextlib.closing(self._open(call, client)) as response:
                reply, exchange = call.open_reply(response), call.exchange
                chunks = limit_decompression(response).iter_bytes()
                with AttachPartialReply(reply, exchange):
                    for chunk in chunks:
                        yield from reply.feed(chunk)
                        if reply.done:
                            break
                        if reply.progressed:
                            reply.progressed = False
                            exchange.extend()
                        else:
                            exchange.check()
                    yield from reply.close()
                if not reply.stopped_early:
                    _drain(call, chunks)

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer as a stream of events, without blocking the event loop; see `Backend.astream`."""
        with self._error_context(request):
            call = await self._aprepare(request, stream=True)
            # No other async generator inside this one: a loop that shuts down closes all of them at once.
            async with self._alease() as client, Closing(await self._aopen(call, client)) as response:
                reply, exchange = call.open_reply(response), call.exchange
                chunks = _chunks(call, response, client)
                with AttachPartialReply(reply, exchange):
                    async for chunk in chunks:
                        for event in reply.feed(chunk):
                            yield event
                        if reply.done:
                            break
                        if reply.progressed:
                            reply.progressed = False
                            exchange.extend()
                        else:
                            exchange.check()
                    for event in reply.close():
                        yield event
                if not reply.stopped_early:
                    await _adrain(call, chunks)

    def send(self, call: PreparedCall) -> bytes:
        """Send a call that is no chat, such as the upload of a file.

        Args:
            call: The call.

        Returns:
            The body of its response.

        Raises:
            LlamaVisionError: As in `Backend.complete`; `ConnectionFailedError` where the body breaks off.
        """
        body = bytearray()
        with (
            self._lease() as client,
            self._watch(call),
            contextlib.closing(self._open(call, client)) as response,
            map_broken_body(call.exchange),
        ):
            for chunk in limit_decompression(response).iter_bytes():
                _extend_file(body, chunk)
                call.exchange.extend()
        return bytes(body)

    async def asend(self, call: PreparedCall) -> bytes:
        """As `send`, without blocking the event loop."""
        body = bytearray()
        async with self._alease() as client, Closing(await self._aopen(call, client)) as response:
            with map_broken_body(call.exchange):
                async for chunk in _chunks(call, response, client):
                    _extend_file(body, chunk)
                    call.exchange.extend()
        return bytes(body)

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
        config, deadline = self._config, self._deadline()
        adapted = adapt_request(
            config.provider,
            request,
            _bound_downloads(config.images, config.deadline),
            api_key=ask_for_key(config.api_key),
            account_id=config.account_id,
        )
        return PreparedCall(config, adapted, stream=stream, deadline=deadline)

    async def _aprepare(self, request: ChatRequest, *, stream: bool) -> PreparedCall:
        config, deadline = self._config, self._deadline()
        adapted = await aadapt_request(
            config.provider,
            request,
            _bound_downloads(config.images, config.deadline),
            api_key=await aask_for_key(config.api_key),
            account_id=config.account_id,
        )
        return PreparedCall(config, adapted, stream=stream, deadline=deadline)

    def _deadline(self) -> float:
        """Return when a call that begins now has to end."""
        return math.inf if self._config.deadline is None else time.monotonic() + self._config.deadline

    def _lease(self) -> contextlib.AbstractContextManager[httpx.Client]:
        return contextlib.nullcontext(self._client) if self._client else ClientLease(self._config.base_url)

    def _alease(self) -> contextlib.AbstractAsyncContextManager[httpx.AsyncClient]:
        if self._async_client:
            return contextlib.nullcontext(self._async_client)
        return AsyncClientLease(self._config.base_url)

    def _watch(self, call: PreparedCall) -> contextlib.AbstractContextManager[None]:
        return watch(call) if self._client else _NOT_WATCHED

    def _open(self, call: PreparedCall, client: httpx.Client) -> httpx.Response:
        """Send a call, with retries, until it succeeds. The caller closes the response."""
        while True:
            try:
                request = call.build(self._client)
                with MapTransportErrors(call.exchange):
                    response = client.send(request, stream=True)
                call.exchange.begin_response(response)
                if response.is_success:
                    return response
                raise _read_error(call, response)
            except LlamaVisionError as error:
                self._handle_failure(call, error, client)

    async def _aopen(self, call: PreparedCall, client: httpx.AsyncClient) -> httpx.Response:
        """As `_open`."""
        while True:
            try:
                response = await self._asend(call, client, call.build(self._async_client, client))
                call.exchange.begin_response(response)
                if response.is_success:
                    return response
                raise await _aread_error(call, response, client)
            except LlamaVisionError as error:
                await self._ahandle_failure(call, error, client)

    async def _asend(
        self, call: PreparedCall, client: httpx.AsyncClient, request: httpx.Request
    ) -> httpx.Response:
        with MapTransportErrors(call.exchange):
            if keeps_time(client):
                return await cancel_once(client.send(request, stream=True))
            exchange = call.exchange
            token = current_exchange.set(exchange)
            try:
                async with asyncio.timeout(exchange.remaining()) as exchange.timer:
                    return await cancel_once(client.send(request, stream=True))
            finally:
                exchange.timer = None
                current_exchange.reset(token)

    def _handle_failure(self, call: PreparedCall, error: LlamaVisionError, client: httpx.Client) -> None:
        """Prepare and await the next attempt, or raise the error."""
        action = call.next_action(error)
        if action.renew_key:
            call.replace_key(ask_for_key(self._config.api_key), error)
        if action.accept_license:
            self._accept_license(call, client)
        time.sleep(action.delay)

    async def _ahandle_failure(
        self, call: PreparedCall, error: LlamaVisionError, client: httpx.AsyncClient
    ) -> None:
        """As `_handle_failure`."""
        action = call.next_action(error)
        if action.renew_key:
            call.replace_key(await aask_for_key(self._config.api_key), error)
        if action.accept_license:
            request = call.build_license_request(self._async_client, client)
            response = await self._asend(call, client, request)
            _check_license_response(response, await _aread_error(call, response, client))
        await asyncio.sleep(action.delay)

    def _accept_license(self, call: PreparedCall, client: httpx.Client) -> None:
        request = call.build_license_request(self._client)
        with MapTransportErrors(call.exchange):
            response = client.send(request, stream=True)
        _check_license_response(response, _read_error(call, response))

    def _error_context(self, request: ChatRequest) -> AttachErrorContext:
        return AttachErrorContext(self._config.provider.name, request.model)


def _bound_downloads(images: ImageSettings, deadline: float | None) -> ImageSettings:
    """Let no image be downloaded for longer than a call may take."""
    if deadline is None or deadline >= images.fetch.timeout_s:
        return images
    return replace(images, fetch=replace(images.fetch, timeout_s=deadline))


def _extend_file(body: bytearray, chunk: bytes) -> None:
    body += chunk
    if len(body) > _MAX_FILE_BYTES:
        raise MalformedReplyError(f"The file has more than {_MAX_FILE_BYTES >> 20} MB, and was given up.")


def _chunks(call: PreparedCall, response: httpx.Response, client: httpx.AsyncClient) -> AsyncIterator[bytes]:
    chunks = CancelOnce(limit_decompression(response).aiter_bytes())
    return chunks if keeps_time(client) else TimedChunks(chunks, call.exchange)


def _read_error(call: PreparedCall, response: httpx.Response) -> StatusError:
    """Read an error response; of one that breaks off, the status says enough."""
    body = bytearray()
    with contextlib.closing(response), contextlib.suppress(httpx.HTTPError, OSError, MalformedReplyError):
        for chunk in limit_decompression(response).iter_bytes():
            body += chunk
            if len(body) > _MAX_ERROR_BYTES or call.exchange.expired:
                break
    return call.error_from_response(response, bytes(body[:_MAX_ERROR_BYTES]))


async def _aread_error(
    call: PreparedCall, response: httpx.Response, client: httpx.AsyncClient
) -> StatusError:
    """As `_read_error`."""
    body = bytearray()
    async with Closing(response):
        with contextlib.suppress(httpx.HTTPError, OSError, MalformedReplyError):
            async for chunk in _chunks(call, response, client):
                body += chunk
                if len(body) > _MAX_ERROR_BYTES or call.exchange.expired:
                    break
    return call.error_from_response(response, bytes(body[:_MAX_ERROR_BYTES]))


def _drain(call: PreparedCall, chunks: Iterator[bytes]) -> None:
    """Read what follows the end of an event stream, for a second at most, so that its connection can be reused.

    A connection whose response was not read to the end has to be closed, at the cost of a handshake for the next call.
    """
    call.exchange.begin_drain()
    # The reply is complete: a failure now only concerns the connection.
    with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
        for _ in chunks:
            call.exchange.check()


async def _adrain(call: PreparedCall, chunks: AsyncIterator[bytes]) -> None:
    """As `_drain`."""
    call.exchange.begin_drain()
    with contextlib.suppress(httpx.HTTPError, OSError):
        async for _ in chunks:
            call.exchange.check()


def _check_license_response(response: httpx.Response, error: StatusError) -> None:
    """Raise for a wrong key or a rate limit only: whether the license was accepted shows in the next call."""
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.TOO_MANY_REQUESTS):
        raise error

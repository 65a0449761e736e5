"""Drives a dialect over HTTP. The synchronous and the asynchronous half differ only in the lines that wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import TypeAlias

import httpx

from llama_vision.backends.clients import async_client, sync_client
from llama_vision.backends.draining import adrain, drain
from llama_vision.backends.reading import ReplyReader, broken_stream_error, transport_error
from llama_vision.backends.retry import Retries, parse_retry_after
from llama_vision.core.errors import ConfigurationError, LlamaVisionError, StatusError
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.dialect import Dialect
from llama_vision.dialects.error_bodies import status_error
from llama_vision.providers.checks import check_request
from llama_vision.providers.keys import checked_key
from llama_vision.providers.record import Provider
from llama_vision.version import __version__

_Client: TypeAlias = httpx.Client | httpx.AsyncClient


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
        timeout: float | httpx.Timeout | None,
        max_retries: int,
        headers: Mapping[str, str],
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._provider = provider
        self._dialect = dialect
        self._base_url = base_url
        self._api_key = api_key
        # Waiting for a free connection is waiting for one's own calls, and no failure of the provider.
        self._timeout = timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout, pool=None)
        self._max_retries = max_retries
        self._headers = _checked_headers(headers)
        self._client = client
        self._async_client = async_client

    def __repr__(self) -> str:
        return f"HttpBackend({self._provider.name!r}, {self._base_url!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        with self._located(request):
            prepared = self._prepared(request, stream=False)
            retries = Retries(self._max_retries)
            while True:
                try:
                    with _transport():
                        client = self._client or sync_client()
                        response = client.send(prepared(client))
                    return self._whole_reply(request, response)
                except LlamaVisionError as error:
                    time.sleep(retries.delay_after(error))

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        with self._located(request):
            prepared = self._prepared(request, stream=False)
            retries = Retries(self._max_retries)
            while True:
                try:
                    with _transport():
                        client = self._async_client or await async_client()
                        response = await client.send(prepared(client))
                    return self._whole_reply(request, response)
                except LlamaVisionError as error:
                    await asyncio.sleep(retries.delay_after(error))

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer piece by piece; see `Backend.stream`."""
        with self._located(request), contextlib.closing(self._open(request)) as response:
            reader, chunks = self._reader(request, response), response.iter_bytes()
            with _partial(reader):
                for received in chunks:
                    yield from reader.feed(received)
                    if reader.done:
                        break
                yield from reader.close()
            drain(chunks, response)

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer piece by piece, without blocking the event loop; see `Backend.astream`."""
        with self._located(request):
            # No async generator in here beside our own: a loop that shuts down closes all of them at once.
            async with contextlib.aclosing(await self._aopen(request)) as response:
                reader, chunks = self._reader(request, response), response.aiter_bytes()
                with _partial(reader):
                    async for received in chunks:
                        for event in reader.feed(received):
                            yield event
                        if reader.done:
                            break
                    for event in reader.close():
                        yield event
                await adrain(chunks)

    def _open(self, request: ChatRequest) -> httpx.Response:
        """Send a streamed call until it is answered with a success. Whoever asked for the answer closes it."""
        prepared = self._prepared(request, stream=True)
        retries = Retries(self._max_retries)
        while True:
            try:
                with _transport():
                    client = self._client or sync_client()
                    response = client.send(prepared(client), stream=True)
                    if not response.is_success:
                        with contextlib.closing(response):
                            response.read()
                        raise self._status_error(response)
                    return response
            except LlamaVisionError as error:
                time.sleep(retries.delay_after(error))

    async def _aopen(self, request: ChatRequest) -> httpx.Response:
        """As `_open`."""
        prepared = self._prepared(request, stream=True)
        retries = Retries(self._max_retries)
        while True:
            try:
                with _transport():
                    client = self._async_client or await async_client()
                    response = await client.send(prepared(client), stream=True)
                    if not response.is_success:
                        async with contextlib.aclosing(response):
                            await response.aread()
                        raise self._status_error(response)
                    return response
            except LlamaVisionError as error:
                await asyncio.sleep(retries.delay_after(error))

    def _prepared(self, request: ChatRequest, *, stream: bool) -> Callable[[_Client], httpx.Request]:
        """Check and encode a request once, however often it will be sent."""
        check_request(self._provider, request)
        key = checked_key(self._provider, self._api_key)
        call = self._dialect.encode(request, stream=stream)
        headers = {
            "user-agent": f"llama-vision/{__version__}",
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **({"authorization": f"Bearer {key}"} if key else {}),
            **call.headers,
            **self._headers,
        }
        url = self._base_url + call.path
        return lambda client: client.build_request(
            "POST", url, content=call.body, headers=headers, timeout=self._timeout
        )

    def _whole_reply(self, request: ChatRequest, response: httpx.Response) -> Reply:
        if not response.is_success:
            raise self._status_error(response)
        reader = self._reader(request, response, streamed=False)
        with _partial(reader):
            for _ in (*reader.feed(response.content), *reader.close()):
                pass
        return reader.reply()

    def _reader(
        self, request: ChatRequest, response: httpx.Response, *, streamed: bool = True
    ) -> ReplyReader:
        decoder = self._dialect.decoder(request.model, response.headers)
        return ReplyReader(decoder, streamed=streamed, key=checked_key(self._provider, self._api_key))

    def _status_error(self, response: httpx.Response) -> StatusError:
        """Make the error of an answer, without the key should the provider have repeated it."""
        body = response.content
        if key := checked_key(self._provider, self._api_key):
            body = body.replace(key.encode(), b"[key]")
        error = status_error(response.status_code, body, response.headers)
        error.retry_after = parse_retry_after(response.headers.get("retry-after"))
        return error

    @contextlib.contextmanager
    def _located(self, request: ChatRequest) -> Generator[None]:
        try:
            yield
        except LlamaVisionError as error:
            error.at(self._provider.name, request.model)
            raise


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Refuse what httpx would refuse later, with an error that shows it: a header may hold a key."""
    for name, value in headers.items():
        if not ((name + value).isascii() and (name + value).isprintable()):
            raise ConfigurationError(
                f"The header {name!r} holds a line break or a letter that no header can have."
            )
    return dict(headers)


@contextlib.contextmanager
def _transport() -> Generator[None]:
    """Translate failures before there is an answer."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(f"The address can't be used: {error}") from error
    except httpx.RequestError as error:
        raise transport_error(error) from error


@contextlib.contextmanager
def _partial(reader: ReplyReader) -> Generator[None]:
    """Translate failures while an answer is read, and give them what had arrived."""
    try:
        yield
    except httpx.HTTPError as error:
        failure = broken_stream_error(error)
        failure.partial = reader.reply()
        raise failure from error
    except LlamaVisionError as error:
        error.partial = reader.reply()
        raise

"""One kind of request that is answered by the model: read, answered whole or streamed, counted, logged."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from llama_vision.core.backend import Backend
from llama_vision.core.errors import InvalidRequestError, RequestTimeoutError
from llama_vision.core.events import Event
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.serve.admission import Admission
from llama_vision.serve.failures import CLIENT_CLOSED, Failure, to_failure
from llama_vision.serve.guard import check_access
from llama_vision.serve.metrics import Metrics
from llama_vision.serve.names import ServedNames
from llama_vision.serve.requests import UNLIMITED_TOKENS, ServedRequest
from llama_vision.serve.settings import ServeSettings

_log = logging.getLogger("llama_vision.serve")

_T = TypeVar("_T")

_MAX_PARSED_ON_LOOP = 100_000
"""Bytes of a body that is parsed at once; a larger one, which has images, is parsed in a thread."""

_LAST_WORD_S = 1.0
"""For the error at the end of a stream, whose client may not read any more."""


class Writer(Protocol):
    """Writes one reply in the client's format."""

    media_type: str

    def whole(self, reply: Reply) -> bytes:
        """Write the body of a whole reply."""
        ...

    def chunks(self, event: Event, reply: ReplyBuilder) -> Iterator[bytes]:
        """Write the next event of a stream; `reply` is what there is so far, with it."""
        ...

    def error_chunk(self, error: bytes) -> bytes:
        """Write an error in the middle of a stream."""
        ...


@dataclass(frozen=True, slots=True)
class Interface:
    """What differs between OpenAI's and Ollama's requests.

    Attributes:
        parse: Reads a body; raises our errors. Returns the request, None where there is nothing to answer, and the writer
            of its reply.
        error_body: Writes the body of an error response.
    """

    parse: Callable[[bytes], tuple[ServedRequest | None, Writer]]
    error_body: Callable[[Failure], bytes]


@dataclass(frozen=True, slots=True)
class Service:
    """What all requests share."""

    backend: Backend
    names: ServedNames
    settings: ServeSettings
    admission: Admission
    metrics: Metrics


@dataclass(slots=True)
class _Exchange:
    """One request and what became of it."""

    path: str
    send: Send
    start: float = field(default_factory=time.monotonic)
    status: int = 0
    first_event_s: float | None = None
    reply: ReplyBuilder = field(default_factory=ReplyBuilder)

    async def begin(self, status: int, media_type: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        named = {"content-type": media_type, "cache-control": "no-store", **(headers or {})}
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in named.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, body: bytes, *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


class ReplyEndpoint:
    """An ASGI application for one path."""

    def __init__(self, service: Service, path: str, interface: Interface) -> None:
        self._service = service
        self._path = path
        self._interface = interface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = _Exchange(self._path, send)
        writer: Writer | None = None
        try:
            request = Request(scope, receive)
            check_access(request, self._service.settings)
            with self._service.admission.admit():
                body = await _read_body(request, self._service.settings)
                parse = self._interface.parse
                served, writer = (
                    parse(body) if len(body) <= _MAX_PARSED_ON_LOOP else await asyncio.to_thread(parse, body)
                )
                work = self._reply(exchange, served, writer)
                await _until_disconnect(receive, work, self._service.settings.timeout_s)
        except ClientDisconnect:
            exchange.status = CLIENT_CLOSED
        except Exception as error:  # noqa: BLE001 - the client is told
            await self._fail(exchange, writer, error)
        finally:
            self._record(exchange)

    async def _reply(self, exchange: _Exchange, served: ServedRequest | None, writer: Writer) -> None:
        if served is None:
            await exchange.begin(200, "application/json")
            await exchange.write(writer.whole(Reply(finish_reason="load")))
            return
        chat = self._limited(served.chat)
        if self._service.settings.log_content:
            _log.info("%s: %s", self._path, "\n".join(message.text for message in chat.messages))
        async with contextlib.aclosing(self._service.backend.astream(chat)) as events:
            async for event in events:
                exchange.reply.add(event)
                if exchange.first_event_s is None:
                    exchange.first_event_s = time.monotonic() - exchange.start
                    if served.stream:
                        await exchange.begin(200, writer.media_type)
                if served.stream:
                    for chunk in writer.chunks(event, exchange.reply):
                        await exchange.write(chunk, more=True)
        if served.stream:
            await exchange.write(b"")
        else:
            await exchange.begin(200, "application/json")
            await exchange.write(writer.whole(exchange.reply.reply()))

    def _limited(self, chat: ChatRequest) -> ChatRequest:
        """Apply the server's limits, and put the model's own id in place of the name that the client used."""
        settings = self._service.settings
        if (num_images := len(chat.images())) > settings.max_images:
            raise InvalidRequestError(
                f"The request has {num_images} images, and the server takes {settings.max_images}."
            )
        limit, sampling = settings.max_tokens, chat.sampling
        if limit is not None and sampling.max_tokens > limit:
            if sampling.max_tokens < UNLIMITED_TOKENS:
                raise InvalidRequestError(
                    f"max_tokens is {sampling.max_tokens}, and the server allows {limit}."
                )
            sampling = replace(sampling, max_tokens=limit)
        return replace(chat, model=self._service.names.resolve(chat.model), sampling=sampling)

    async def _fail(self, exchange: _Exchange, writer: Writer | None, error: Exception) -> None:
        failure = to_failure(error)
        if failure.status >= 500:  # noqa: PLR2004 - the server's own errors
            _log.error("%s: %s", self._path, error, exc_info=error)
        body = self._interface.error_body(failure)
        if exchange.status and writer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORD_S):
                    await exchange.write(writer.error_chunk(body))
            exchange.status = failure.status
            return
        seconds = failure.retry_after_s
        headers = {} if seconds is None else {"retry-after": f"{seconds:g}"}
        await exchange.begin(failure.status, "application/json", headers)
        await exchange.write(body)

    def _record(self, exchange: _Exchange) -> None:
        seconds = time.monotonic() - exchange.start
        usage = exchange.reply.usage
        self._service.metrics.count_request(
            exchange.path, exchange.status, seconds, exchange.first_event_s, usage
        )
        _log.info(
            "%s %d: %s + %s tokens, %.2f s",
            *(exchange.path, exchange.status, usage.input_tokens or 0, usage.output_tokens or 0, seconds),
        )
        if self._service.settings.log_content and exchange.reply.text:
            _log.info("%s: %s", self._path, exchange.reply.text)


async def _read_body(request: Request, settings: ServeSettings) -> bytes:
    """Read a body up to the limit.

    Raises:
        InvalidRequestError: It is too large, compressed, or does not arrive in time.
    """
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise _refused(415, f"The body is encoded as {encoding[:40]}; send it as it is.")
    too_large = _refused(413, f"The body is larger than {settings.max_body_bytes} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > settings.max_body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_body_bytes:
                    raise too_large
    except TimeoutError:
        raise _refused(408, f"The body did not arrive in {settings.body_timeout_s:g} s.") from None
    return bytes(body)


def _refused(status: int, message: str) -> InvalidRequestError:
    error = InvalidRequestError(message)
    error.status_code = status
    return error


async def _until_disconnect(
    receive: Callable[[], Awaitable[Message]], work: Coroutine[Any, Any, _T], timeout_s: float
) -> _T:
    """Run until it ends, the client leaves, or time is up.

    Raises:
        ClientDisconnect: The client has left.
        RequestTimeoutError: It took too long.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        done, _ = await asyncio.wait(
            {working, leaving}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if working in done:
            return working.result()
        if leaving in done:
            raise ClientDisconnect
        raise RequestTimeoutError(f"The request took more than {timeout_s:g} s.")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

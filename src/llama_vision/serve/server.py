"""Runs the application with uvicorn: the model is loaded first, and SIGTERM lets replies end."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Generator
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llama_vision.backends.local import LocalSettings
from llama_vision.core.errors import ConfigurationError
from llama_vision.core.messages import single_turn_messages
from llama_vision.core.request import ChatRequest, SamplingParams
from llama_vision.serve.app import create_app
from llama_vision.serve.endpoint import Service
from llama_vision.serve.settings import ServeSettings

_log = logging.getLogger("llama_vision.serve")

_HEAD_TIMEOUT_S = 20.0
_MAX_HEAD_BYTES = 65_536
_SPARE_CONNECTIONS = 1_000
"""Beyond the requests in work: connections that only wait, or get a 429."""


def serve(
    model: str = "tiny", settings: ServeSettings | None = None, *, local: LocalSettings | None = None
) -> None:
    """Serve a model until SIGTERM or ctrl-C. It is loaded before the first connection is taken.

    Args:
        model: `tiny`, `11b`, `90b`, a folder, or another name that `provider="local"` takes.
        settings: Address, access and limits.
        local: How the model runs.

    Raises:
        ConfigurationError: The address can't be listened on.
        LocalModelError: The model can't be loaded.
        MissingDependencyError: torch or transformers is not installed.
    """
    settings = settings or ServeSettings()
    with _bind(settings) as listener:
        app = create_app(model, settings, local=local)
        service: Service = app.state.service
        _warm_up(service)
        Server(app, service, ready_line=_ready_line(service, _address(settings, listener))).run([listener])


@contextlib.contextmanager
def serving(
    model: str = "tiny", settings: ServeSettings | None = None, *, local: LocalSettings | None = None
) -> Generator[str]:
    """Serve a model in a thread while the block runs, as for a notebook or a test. It is loaded with the first request.

    Args:
        model: `tiny`, `11b`, `90b`, a folder, or another name that `provider="local"` takes.
        settings: Address, access and limits.
        local: How the model runs.

    Yields:
        The server's address, such as `http://localhost:8484`.

    Raises:
        ConfigurationError: The address can't be listened on.
    """
    settings = settings or ServeSettings()
    with _bind(settings) as listener:
        app = create_app(model, settings, local=local)
        with run_in_thread(Server(app, app.state.service), listener):
            yield _address(settings, listener)


@contextlib.contextmanager
def run_in_thread(server: "Server", listener: socket.socket) -> Generator[None]:
    """Run a server in a thread while the block runs."""
    thread = threading.Thread(target=server.run, args=([listener],), name="llama-vision serve", daemon=True)
    thread.start()
    try:
        yield  # connections wait until it accepts them
    finally:
        server.should_exit = True
        thread.join()


def _bind(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:  # a host name that is not known is one too
        raise ConfigurationError(
            f"{settings.host}:{settings.port} can't be listened on: {error.strerror}. Choose another --port or --host."
        ) from error


def _address(settings: ServeSettings, listener: socket.socket) -> str:
    host = settings.host
    host = "localhost" if settings.is_loopback else f"[{host}]" if ":" in host else host
    return f"http://{host}:{listener.getsockname()[1]}"


def _warm_up(service: Service) -> None:
    greeting = single_turn_messages("Hi")
    request = ChatRequest(service.names.model, greeting, sampling=SamplingParams(max_tokens=1))
    service.backend.complete(request)


def _ready_line(service: Service, address: str) -> str:
    name = service.names.listed[0]
    return (
        f"Serving {name} at {address}/v1 (OpenAI) and {address} (Ollama, and a page to try it). "
        f"ChatLlamaVision(provider='llama-vision', model={name!r}, base_url='{address}/v1')"
    )


class Server(uvicorn.Server):
    """Drains before it stops."""

    def __init__(self, app: Starlette, service: Service, *, ready_line: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=service.settings.max_requests + _SPARE_CONNECTIONS,
                timeout_graceful_shutdown=1,  # replies have ended, or had their time
            )
        )
        self._service = service
        self._ready_line = ready_line
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._ready_line:  # from here on a signal lets replies end
            print(self._ready_line, flush=True)  # noqa: T201 - for who started it

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is None and self._loop is not None:
            _log.info("Shutting down: %d requests are in work.", self._service.admission.num_active)
            self._draining = self._loop.create_task(self._drain())
            self._loop.call_soon_threadsafe(lambda: None)  # wakes the loop: signals arrive between its steps
        else:
            super().handle_exit(sig, frame)

    async def _drain(self) -> None:
        await self._service.admission.drain(self._service.settings.shutdown_timeout_s)
        self.should_exit = True


class _Protocol(HttpToolsProtocol):
    """Limits the head of a request: its size, and for the first of a connection the time until it is there."""

    _reads_head = True
    _head_bytes = 0  # received while its end has not been seen
    _header_bytes = 0  # of the headers, should all of them come at once

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.loop.call_later(_HEAD_TIMEOUT_S, self._close_if_silent)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data) if self._reads_head else 0
        if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reads_head, self._head_bytes, self._header_bytes = True, 0, 0

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _MAX_HEAD_BYTES:
            raise ValueError(
                "The head of the request is too large."
            )  # the parser stops, and the client gets a 400

    @override
    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._reads_head, self._head_bytes = False, 0

    def _close_if_silent(self) -> None:
        if self._reads_head and not self.transport.is_closing():
            self.transport.close()

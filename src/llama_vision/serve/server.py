"""Runs the application with uvicorn: the model is loaded first, and SIGTERM lets replies end."""

import asyncio
import logging
import socket
from types import FrameType
from typing import Any, cast

import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from llama_vision.backends.local import LocalSettings
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
        LocalModelError: The model can't be loaded.
        MissingDependencyError: torch or transformers is not installed.
    """
    settings = settings or ServeSettings()
    app = create_app(model, settings, local=local)
    service: Service = app.state.service
    _warm_up(service)
    _Server(app, service).run()


def _warm_up(service: Service) -> None:
    greeting = single_turn_messages("Hi")
    request = ChatRequest(service.names.model, greeting, sampling=SamplingParams(max_tokens=1))
    service.backend.complete(request)


class _Server(uvicorn.Server):
    """Prints a line when it is ready, and drains before it stops."""

    def __init__(self, app: Any, service: Service) -> None:
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
                limit_concurrency=settings.max_requests + _SPARE_CONNECTIONS,
                timeout_graceful_shutdown=1,  # replies have ended, or had their time
            )
        )
        self._service = service
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.servers:
            print(_ready_line(self._service, self.servers[0].sockets[0].getsockname()[1]), flush=True)  # noqa: T201 - for who started it

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


class _Protocol(H11Protocol):
    """Closes a connection whose first request's head does not arrive in time."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.loop.call_later(_HEAD_TIMEOUT_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        has_request = cast("object", self.cycle) is not None
        if not has_request and not self.transport.is_closing():
            self.transport.close()


def _ready_line(service: Service, port: int) -> str:
    host = service.settings.host
    host = "localhost" if service.settings.is_loopback else f"[{host}]" if ":" in host else host
    address = f"http://{host}:{port}"
    name = service.names.listed[0]
    return (
        f"Serving {name} at {address}/v1 (OpenAI) and {address} (Ollama, and a page to try it). "
        f"ChatLlamaVision(provider='llama-vision', model={name!r}, base_url='{address}/v1')"
    )

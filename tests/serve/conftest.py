"""A server with the tiny model on a real socket, in a thread of the tests' own process."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from llama_vision.backends.local import LocalSettings
from llama_vision.core.backend import Backend
from llama_vision.serve import ServeSettings, create_app
from llama_vision.serve.endpoint import Service
from llama_vision.serve.server import Server, run_in_thread


@dataclass
class Served:
    """A running server."""

    url: str
    service: Service
    server: Server

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Send JSON; the exact bytes where `content` is given."""
        sent = {"content": options.pop("content")} if "content" in options else {"json": body}
        return httpx.post(f"{self.url}{path}", **sent, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, **options)


@contextlib.contextmanager
def running(
    settings: ServeSettings | None = None,
    *,
    backend: Backend | None = None,
    local: LocalSettings | None = None,
    model: str = "tiny",
) -> Iterator[Served]:
    """Serve on a free port."""
    settings = settings or ServeSettings()
    app = create_app(model, settings, backend=backend, local=local)
    server = Server(app, app.state.service)
    with socket.create_server(("127.0.0.1", 0)) as listener, run_in_thread(server, listener):
        port = listener.getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", app.state.service, server)


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """The server with its defaults."""
    with running() as server:
        yield server


@pytest.fixture
def serving() -> Iterator[Callable[..., Served]]:
    """Start servers with settings of one's own; they end with the test."""
    with contextlib.ExitStack() as stack:

        def start(
            *, backend: Backend | None = None, local: LocalSettings | None = None, **settings: Any
        ) -> Served:
            return stack.enter_context(running(ServeSettings(**settings), backend=backend, local=local))

        yield start

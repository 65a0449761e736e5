"""A server with the tiny model on a real socket, in a thread of the tests' own process."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from llama_vision.backends.local import LocalSettings
from llama_vision.core.backend import Backend
from llama_vision.serve import ServeSettings, create_app
from llama_vision.serve.endpoint import Service
from llama_vision.serve.server import _Server


@dataclass
class Served:
    """A running server."""

    url: str
    service: Service
    server: _Server

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
) -> Iterator[Served]:
    """Serve on a free port."""
    settings = settings or ServeSettings(port=0)
    app = create_app("tiny", settings, backend=backend, local=local)
    server = _Server(app, app.state.service)
    thread = threading.Thread(target=server.run, name="served")
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", app.state.service, server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


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
            return stack.enter_context(
                running(ServeSettings(port=0, **settings), backend=backend, local=local)
            )

        yield start

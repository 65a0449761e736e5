"""An emulator: a server in a thread, what it is told to answer, and what it saw."""

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.emulator import playback
from tests.emulator.answers import Answer
from tests.emulator.deepinfra import DeepInfra
from tests.emulator.playback import Playback
from tests.emulator.received import Received

Plan: TypeAlias = Answer | dict[str, Any] | Callable[[Received], Answer | dict[str, Any]]
"""An answer byte for byte; a reply that the dialect sends whole or streamed, as was asked; or what makes one of them."""

API_KEY = "emulator-key-2f9c81d4"


class Dialect(Protocol):
    """A provider's documented ways; each provider has a file."""

    base_path: str
    call_path: str

    def refuse(self, received: Received, api_key: str | None) -> Answer | None:
        """Check a request as strictly as the documentation allows; None where nothing is wrong."""

    def reply(self, received: Received) -> dict[str, Any]:
        """Say something of its own to a request."""

    def encode(self, reply: dict[str, Any], received: Received) -> Answer:
        """Put a reply on the wire, whole or streamed, as the request asks."""


class Emulator:
    """A provider on this machine.

    Attributes:
        base_url: What the provider's `base_url` is replaced with.
        api_key: The only key that is let in; None lets everyone in.
        requests: What arrived since the last reset, refused or not.
        disconnects: How many answers were left by the client before their end.

    """

    def __init__(self, dialect: Dialect | None = None, port: int = 0) -> None:
        self._dialect = dialect or DeepInfra()
        # asyncio sends small pieces at once only where the protocol is named; otherwise each answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}{self._dialect.base_path}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._change = threading.Condition()
        self._forget()
        path = self._dialect.base_path + self._dialect.call_path
        app = Starlette(
            routes=[Route(path, self._answer, methods=["POST"])], exception_handlers={HTTPException: _detail}
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=playback.Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                timeout_keep_alive=60,  # longer than any client keeps a connection
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._serve, name=f"emulator-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()
        self._server.should_exit = True
        self._thread.join()

    def script(self, *plans: Plan) -> None:
        """Say what the next requests get, in order. A request that is refused as wrong uses none of it."""
        self._script.extend(plans)

    def always(self, plan: Plan) -> None:
        """Say what all requests get that no script is left for."""
        self._always = plan

    def reset(self) -> None:
        """Forget requests and scripts, and drop the connections of answers that are still on their way."""
        if self._loop is not None and self._thread.is_alive():
            done = threading.Event()
            self._loop.call_soon_threadsafe(self._cancel, done)
            done.wait(5)
        self._forget()

    @property
    def unplayed(self) -> int:
        """How many scripted answers nobody asked for."""
        return len(self._script)

    @property
    def connections(self) -> int:
        """How many connections the requests came through."""
        return len({received.client_port for received in self.requests})

    def wait_for_disconnect(self, timeout: float = 2.0, *, count: int = 1) -> bool:
        """Wait until clients have left answers before their end; False where they did not in time."""
        with self._change:
            return self._change.wait_for(lambda: self.disconnects >= count, timeout)

    def wait_for_requests(self, count: int = 1, timeout: float = 5.0) -> bool:
        """Wait until requests have arrived; False where they did not in time."""
        with self._change:
            return self._change.wait_for(lambda: len(self.requests) >= count, timeout)

    def _forget(self) -> None:
        self.api_key: str | None = API_KEY
        self.requests: list[Received] = []
        self.disconnects = 0
        self._script: deque[Plan] = deque()
        self._always: Plan = self._dialect.reply

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve(sockets=[self._socket]))

    def _cancel(self, done: threading.Event) -> None:
        for task in self._running:
            task.cancel()
        done.set()

    async def _answer(self, request: Request) -> Playback:
        assert request.client is not None
        received = Received(
            method=request.method,
            path=request.url.path,
            headers=dict(request.headers),
            content=await request.body(),
            client_port=request.client.port,
            at=time.monotonic(),
        )
        with self._change:
            self.requests.append(received)
            self._change.notify_all()
        return Playback(
            self._next_answer(received), running=self._running, on_disconnect=self._note_disconnect
        )

    def _next_answer(self, received: Received) -> Answer:
        if wrong := self._dialect.refuse(received, self.api_key):
            return wrong
        plan = self._script.popleft() if self._script else self._always
        if callable(plan):
            plan = plan(received)
        return plan if isinstance(plan, Answer) else self._dialect.encode(plan, received)

    def _note_disconnect(self) -> None:
        with self._change:
            self.disconnects += 1
            self._change.notify_all()


def _detail(request: Request, error: Exception) -> JSONResponse:
    """Say it as FastAPI does, which DeepInfra runs on."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)

"""An emulator: a server in a thread, what it is told to answer, and what it saw."""

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.emulator import playback
from tests.emulator.answers import Answer
from tests.emulator.batches import ROUTES
from tests.emulator.deepinfra import DeepInfra
from tests.emulator.dialect import Dialect
from tests.emulator.playback import Playback
from tests.emulator.received import Received

Plan: TypeAlias = Answer | dict[str, Any] | Callable[[Received], Answer | dict[str, Any]]
"""An answer byte for byte; a reply that the dialect sends whole or streamed, as was asked; or what makes one of them."""

API_KEY = "emulator-key-2f9c81d4"


class Emulator:
    """A provider on this machine.

    Attributes:
        base_url: What the provider's `base_url` is replaced with.
        dialect: How the provider speaks; another one after each reset.
        api_key: The only key that is let in; None lets everyone in.
        requests: What arrived since the last reset, refused or not.
        disconnects: How many answers were left by the client before their end.
    """

    def __init__(self, dialect: Callable[[], Dialect] = DeepInfra, port: int = 0) -> None:
        self._new_dialect = dialect
        # asyncio sends small pieces at once only where the protocol is named; otherwise each answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._change = threading.Condition()
        self._forget()
        base_path = self.dialect.base_path
        self.base_url = f"http://127.0.0.1:{self.port}{base_path}"
        app = Starlette(
            routes=[
                *(
                    Route(base_path + path, self._answer, methods=["POST"])
                    for path in self.dialect.call_paths
                ),
                *(
                    Route(base_path + path, self._answer, methods=[method])
                    for method, path in (ROUTES if hasattr(self.dialect, "batches") else ())
                ),
            ],
            exception_handlers={HTTPException: self._lost},
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

    def refusal(
        self, status: int, message: str = "", *, code: int | None = None, retry_after: float | str = ""
    ) -> Answer:
        """Make an error as this provider writes errors; a code is Cloudflare's."""
        answer = self.dialect.error(status, message, code)
        return _with_headers(answer, {"retry-after": str(retry_after)} if retry_after != "" else {})

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

    @property
    def open_connections(self) -> int:
        """How many connections are open now, idle ones included."""
        return len(self._server.server_state.connections)

    def wait_for_disconnect(self, timeout: float = 2.0, *, count: int = 1) -> bool:
        """Wait until clients have left answers before their end; False where they did not in time."""
        with self._change:
            return self._change.wait_for(lambda: self.disconnects >= count, timeout)

    def wait_for_requests(self, count: int = 1, timeout: float = 5.0) -> bool:
        """Wait until requests have arrived; False where they did not in time."""
        with self._change:
            return self._change.wait_for(lambda: len(self.requests) >= count, timeout)

    def _forget(self) -> None:
        self.dialect: Any = self._new_dialect()  # Any, so that a test can set what only one provider has
        self.api_key: str | None = API_KEY
        self.requests: list[Received] = []
        self.disconnects = 0
        self._script: deque[Plan] = deque()
        self._always: Plan = self.dialect.reply

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
            query=dict(request.query_params),
        )
        with self._change:
            self.requests.append(received)
            self._change.notify_all()
        return Playback(
            self._next_answer(received), running=self._running, on_disconnect=self._note_disconnect
        )

    def _next_answer(self, received: Received) -> Answer:
        path = received.path.removeprefix(self.dialect.base_path)
        if hasattr(self.dialect, "batches") and path not in self.dialect.call_paths:
            return self._batch_answer(received, path)
        answer = self.dialect.refuse(received, self.api_key) or self._planned(received)
        return _with_headers(answer, self.dialect.headers(received))

    def _batch_answer(self, received: Received, path: str) -> Answer:
        if refused := self.dialect.refuse_key(received, self.api_key):
            return refused

        def reply_to(line: Received) -> Answer:
            return self.dialect.refuse(line, None) or self._planned(line)

        return self.dialect.batches.answer(received, path, reply_to, self.dialect.error)

    def _planned(self, received: Received) -> Answer:
        plan = self._script.popleft() if self._script else self._always
        if callable(plan):
            plan = plan(received)
        return plan if isinstance(plan, Answer) else self.dialect.encode(plan, received)

    def _note_disconnect(self) -> None:
        with self._change:
            self.disconnects += 1
            self._change.notify_all()

    def _lost(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer: Answer = self.dialect.lost(error.status_code, request.url.path)
        (body,) = answer.steps
        return Response(body, error.status_code, {**answer.headers, **(error.headers or {})})


def _with_headers(answer: Answer, headers: dict[str, str]) -> Answer:
    """Add headers to those that an answer has already."""
    return replace(answer, headers={**headers, **answer.headers})

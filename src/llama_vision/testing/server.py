"""A chat completions server in a thread, which replies from a script."""

import contextlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from typing_extensions import override

from llama_vision.core.models import ModelInfo
from llama_vision.providers.provider import BatchApi, Provider
from llama_vision.testing.batches import ScriptedBatches
from llama_vision.testing.received import ReceivedRequest
from llama_vision.testing.script import Answer, Failure, ScriptEntry, to_scripted_reply
from llama_vision.testing.wire import encode_chunks, encode_completion, encode_error

_HOST = "127.0.0.1"
_IDLE_S = 5.0  # how long an idle connection may delay closing


class ScriptedServer:
    """An OpenAI-compatible server on this machine that replies from a script. It needs no key and accepts any.

        with ScriptedServer("A cat.", Failure(429), {"color": "red"}) as server:
            model = ChatLlamaVision(**server.model_options)
            assert model.invoke("What is it?").text == "A cat."
            assert server.requests[0].text == "What is it?"

    Requests take the script's lines in order. Leaving the `with` raises an AssertionError where lines are left over, or where
    there were more requests than lines: those got status 400.

    It has a batch API too, whose batches take their lines when they are created, and are done at once.

    Attributes:
        requests: The requests so far, in order.
    """

    def __init__(self, *script: ScriptEntry) -> None:
        """Set the script; `with` starts the server.

        Args:
            *script: The replies, in order: text, a `tool_call`, an object that is sent as JSON, an `Answer`, a
                `Failure`, or a function that takes the `ReceivedRequest` and returns one of these.
        """
        self.requests: list[ReceivedRequest] = []
        self._script: deque[ScriptEntry] = deque(script)
        self._default: ScriptEntry | None = None
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._exit_stack = contextlib.ExitStack()
        self._server: _Server | None = None

    def script(self, *lines: ScriptEntry) -> None:
        """Append lines to the script.

        Args:
            *lines: As for `ScriptedServer` itself.
        """
        self._script.extend(lines)

    def always(self, line: ScriptEntry) -> None:
        """Set the reply to all requests beyond the script.

        Args:
            line: As for the script.
        """
        self._default = line

    @property
    def base_url(self) -> str:
        """The server's address: everything before `/chat/completions`."""
        if self._server is None:
            raise RuntimeError("The server runs inside `with ScriptedServer(...) as server:` only.")
        return f"http://{_HOST}:{self._server.server_port}/v1"

    @property
    def provider(self) -> Provider:
        """A record of the server, for `provider=` of any model."""
        return Provider(
            name="scripted",
            title="The scripted server",
            base_url=self.base_url,
            key_required=False,
            batch=BatchApi(discount=0.5, max_requests=1000),
            # Objects in a script are sent as JSON text, so structured output has to use a JSON schema and no tool.
            models=(ModelInfo("llama-3.2-11b-vision", "scripted-vision", enforces_schema=True),),
        )

    @property
    def model_options(self) -> dict[str, Any]:
        """What `ChatLlamaVision`, `LlamaVision` and `LlamaVisionMultiModal` take: provider and model."""
        provider = self.provider
        # The model is named so that $LLAMA_VISION_MODEL is ignored.
        return {"provider": provider, "model": provider.models[0].name}

    def __enter__(self) -> Self:
        self._server = _Server((_HOST, 0), _Handler)
        self._server.choose_reply = self._choose_reply
        # A daemon, so that the process ends also where the `with` is never left.
        serving = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="scripted-server", daemon=True
        )
        self._exit_stack.enter_context(_without_proxy())
        self._exit_stack.callback(serving.join)
        self._exit_stack.callback(self._server.server_close)
        self._exit_stack.callback(self._server.shutdown)
        self._exit_stack.callback(self._server.closing.set)
        serving.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._exit_stack.close()
        self._server = None
        if kind is not None:  # the first error says more
            return
        if self._errors:
            raise self._errors[0]
        if self._script:
            raise AssertionError(f"Of the script {len(self._script)} lines were never asked for.")

    def _choose_reply(self, request: ReceivedRequest) -> tuple[Answer | Failure, int]:
        """Record a request, and choose its reply, which is returned with its number from 1 on."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            line = self._script.popleft() if self._script else self._default
        try:
            return _reply_to(line, request, number), number
        except BaseException as error:  # noqa: BLE001 - raised again at the end, in the test's thread; pytest.fail is no Exception
            self._errors.append(error)
            return Failure(400, f"{type(error).__name__}: {error}"), number  # a status that is not retried


def _reply_to(line: ScriptEntry | None, request: ReceivedRequest, number: int) -> Answer | Failure:
    if line is None:
        raise AssertionError(f"The script has no line for request {number}: {request.text[:200]!r}")
    return to_scripted_reply(line(request) if callable(line) else line)


class _Server(ThreadingHTTPServer):
    choose_reply: Callable[[ReceivedRequest], tuple[Answer | Failure, int]]

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.batches = ScriptedBatches()
        self.closing = threading.Event()  # ends all pauses
        self._handlers: list[threading.Thread] = []

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a request in a daemon thread, which `ThreadingMixIn` would not wait for when it closes."""
        handler = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._handlers.append(handler)
        handler.start()

    @override
    def server_close(self) -> None:
        """Wait for the handlers, so that no connection is left open."""
        super().server_close()
        for handler in self._handlers:
            handler.join()


class _Handler(BaseHTTPRequestHandler):
    """Handles one request, and closes its connection, so that none is pooled after the server has stopped."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # chunks arrive when they are sent
    timeout = _IDLE_S
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - only `_Server` creates it

    def do_POST(self) -> None:
        """Read the request and send the script's reply."""
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the client has left
            if self.path != "/v1/chat/completions":
                self._reply_of_batches("POST", content)
                return
            request, answer, number = self._choose(json.loads(content))
            if isinstance(answer, Failure):
                seconds = answer.retry_after_s
                headers = {} if seconds is None else {"Retry-After": f"{seconds:g}"}
                self._send(answer.status, encode_error(answer), **headers)
            elif request.streamed:
                self._stream(answer, request, number)
            else:
                self.server.closing.wait(answer.pause_s)
                self._send(200, encode_completion(answer, request, number))

    def do_GET(self) -> None:
        """Send what there is to know of batches."""
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self._reply_of_batches("GET", b"")

    def _choose(self, body: dict[str, Any]) -> tuple[ReceivedRequest, Answer | Failure, int]:
        request = ReceivedRequest(body, {name.lower(): value for name, value in self.headers.items()})
        return request, *self.server.choose_reply(request)

    def _reply_of_batches(self, method: str, content: bytes) -> None:
        def answer(body: dict[str, Any]) -> tuple[int, bytes]:
            request, chosen, number = self._choose(body)
            if isinstance(chosen, Failure):
                return chosen.status, encode_error(chosen)
            return 200, encode_completion(chosen, request, number)

        reply = self.server.batches.reply(method, self.path.removeprefix("/v1"), content, answer)
        if reply is None:
            reply = 404, encode_error(Failure(404, f"There is nothing at {self.path}."))
        self._send(*reply)

    def _stream(self, answer: Answer, request: ReceivedRequest, number: int) -> None:
        self._head(200, "text/event-stream", **{"Transfer-Encoding": "chunked"})
        for event in encode_chunks(answer, request, number):
            self.server.closing.wait(answer.pause_s)
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self._head(status, "application/json", **{"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def _head(self, status: int, content_type: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def _without_proxy() -> Generator[None]:
    """Exclude this host from a proxy of the environment."""
    names = ("NO_PROXY", "no_proxy")
    before = {name: os.environ[name] for name in names if name in os.environ}
    try:
        os.environ.update({name: f"{before.get(name, '')},{_HOST}".lstrip(",") for name in names})
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)

"""A server on a bare socket, for what no HTTP server would send, and for connections that close when they like."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable
from typing import Self

from llama_vision.backends import create_backend
from llama_vision.core.backend import Backend
from llama_vision.providers import find_provider


class RawServer:
    """Reads requests, and lets a function answer them on the socket; each connection has a thread.

    Attributes:
        requests: The requests so far, as bytes.
        num_connections: How many were accepted.
        leaving: Set when the server closes.
    """

    def __init__(self, answer: Callable[["RawServer", socket.socket], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.requests: list[bytes] = []
        self.num_connections = 0
        self.leaving = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def backend(self, **options: object) -> Backend:
        return create_backend(find_provider("openai-compatible"), base_url=self.base_url, **options)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leaving.set()
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.num_connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        with contextlib.suppress(OSError), connection:
            while piece := connection.recv(65536):
                received += piece
                head, end, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if end and length and len(body) >= int(length[1]):
                    self.requests.append(received)
                    received = b""
                    self._answer(self, connection)


def json_response(body: bytes, *headers: str) -> bytes:
    """Make a whole response."""
    head = "\r\n".join(("HTTP/1.1 200 OK", "content-type: application/json", *headers))
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def chat_response(text: str, *headers: str) -> bytes:
    """Make a whole chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json_response(json.dumps({"id": "1", "choices": [choice]}).encode(), *headers)

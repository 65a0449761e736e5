"""A server that breaks its answers off at any byte, of the head and of the chunk sizes too, and sees who hangs up."""

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

FRAMINGS = ("length", "chunked", "close")
BREAKS = ("reset", "half-close", "stall")


@dataclass(frozen=True, slots=True)
class Break:
    """How an answer breaks off.

    Attributes:
        reply: A key of the server's `replies`.
        framing: How the end of the body is told: its length, chunks, or the end of the connection.
        kind: One of `BREAKS`.
        offset: Number of bytes before, the head's included.
    """

    reply: str
    framing: str
    kind: str
    offset: int


def raw_answer(body: bytes, framing: str, *, streamed: bool) -> bytes:
    """Write an answer as it goes over the wire; a stream has an event in each chunk."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {'text/event-stream' if streamed else 'application/json'}\r\n"
    if framing == "length":
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    if framing == "close":
        return f"{head}connection: close\r\n\r\n".encode() + body
    pieces = [piece + b"\n\n" for piece in body.split(b"\n\n")[:-1]] if streamed else [body]
    chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


class BreakingServer:
    """The server, in a thread. The text of a question says which `Break` it gets: see `ask_for`.

    Attributes:
        base_url: Its address.
        broken: Number of broken connections that the client has not closed yet.
    """

    def __init__(self, raw: Callable[[Break], bytes]) -> None:
        self._raw = raw
        self.broken = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self.base_url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @staticmethod
    def ask_for(broken: Break) -> str:
        """Write the question that gets this answer."""
        return f"{broken.reply}|{broken.framing}|{broken.kind}|{broken.offset}"

    def wait_until_closed(self, timeout: float = 2.0) -> bool:
        """Wait until clients have closed all broken connections."""
        deadline = time.monotonic() + timeout
        while self.broken and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.broken == 0

    def _serve(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=200)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                request = json.loads(await reader.readexactly(length))
                reply, framing, kind, offset = request["messages"][-1]["content"].split("|")
                planned = Break(reply, framing, kind, int(offset))
                raw = self._raw(planned)
                writer.write(raw[: planned.offset])
                await writer.drain()
                if planned.offset < len(raw) or planned.framing == "close":
                    await self._break(planned.kind, reader, writer)
                    return
        except (OSError, EOFError):
            pass  # the client left
        finally:
            writer.close()

    async def _break(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kind == "reset":
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        self.broken += 1
        try:
            if kind == "half-close":
                writer.write_eof()
            await reader.read()  # to the client's end
        finally:
            self.broken -= 1

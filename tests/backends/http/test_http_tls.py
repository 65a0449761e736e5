"""Over TLS, where a connection that is not closed in time is heard of: one per event loop, and none left behind."""

import asyncio
import json
import os
import subprocess
import sys
import threading

import pytest
import trustme

BODY = json.dumps({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
STREAM = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

ASK = """
import asyncio, sys
from llama_vision import ChatRequest, Message, Text, use_aiohttp
from llama_vision.backends import create_backend
from llama_vision.providers import find_provider

use_aiohttp(enabled=sys.argv[2] == "aiohttp")
backend = create_backend(find_provider("openai-compatible"), base_url=sys.argv[1], max_retries=0)
request = ChatRequest("m", (Message("user", (Text("Hello!"),)),))

async def ask():
    asyncio.get_running_loop().slow_callback_duration = 60  # a slow machine leaves nothing behind
    for _ in range(3):
        assert (await backend.acomplete(request)).text == "Hi"
        events = [event async for event in backend.astream(request)]
        assert len(events) == 3

for _ in range(4):
    asyncio.run(ask())
for _ in range(3):
    assert backend.complete(request).text == "Hi"
print("done")
"""


class TlsServer:
    """Answers every call over TLS, and counts calls and connections."""

    def __init__(self, context):
        self.connections = self.calls = 0
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self):
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            self._ready.set()
            await self._end.wait()

    async def _answer(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                body = await reader.readexactly(int(length.split(b":")[1]))
                self.calls += 1
                answer, kind = (
                    (STREAM, b"text/event-stream")
                    if b'"stream":true' in body
                    else (BODY, b"application/json")
                )
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, len(answer))
                )
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def server(authority):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with TlsServer(context) as running:
        yield running


@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
def test_one_connection_for_each_loop_and_nothing_left_behind(server, authority, transport, tmp_path):
    certificate = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(certificate)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-X",
            "dev",
            "-c",
            ASK,
            f"https://127.0.0.1:{server.port}",
            transport,
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "SSL_CERT_FILE": str(certificate)},
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
    assert server.calls == 4 * 6 + 3
    assert server.connections == 4 + 1


def test_a_certificate_of_nobody_is_refused(server):
    done = subprocess.run(
        [sys.executable, "-c", ASK, f"https://127.0.0.1:{server.port}", "httpx"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "ConnectionFailedError" in done.stderr
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    assert server.calls == 0

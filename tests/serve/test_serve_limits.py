"""Bounds of a request: its size, its time, how many at once; and what happens where a client leaves."""

import asyncio
import base64
import contextlib
import io
import json
import socket
import threading
import time

import httpx
import openai
import PIL.Image
import pytest

from llama_vision.backends.local import LocalSettings
from llama_vision.core.errors import LocalModelError
from llama_vision.core.events import Finished, Started, TextDelta, ToolCallDelta
from llama_vision.serve import server
from llama_vision.serve.failures import CLIENT_CLOSED

HI = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


class Slow:
    """A backend of ten lines that waits before each event, and knows who is still asking."""

    def __init__(self, pause_s=0.05, num_events=40, error=None):
        self.pause_s, self.num_events, self.error, self.num_running = pause_s, num_events, error, 0

    async def astream(self, request):
        self.num_running += 1
        try:
            yield Started(request.model)
            for number in range(self.num_events):
                await asyncio.sleep(self.pause_s)
                if self.error and number == 2:
                    raise self.error
                yield TextDelta("x")
            yield Finished("stop")
        finally:
            self.num_running -= 1


def _until(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_at_the_limit_is_read_and_one_beyond_it_is_not(serving, declared):
    body = json.dumps(HI).encode()
    server = serving(max_body_bytes=len(body))

    def send(content):
        return server.post("/v1/chat/completions", None, content=content if declared else iter([content]))

    assert send(body).status_code == 200
    refused = send(body + b" ")
    assert refused.status_code == 413
    assert str(len(body)) in refused.json()["error"]["message"]


def test_a_compressed_body_is_refused(served):
    refused = served.post("/v1/chat/completions", HI, headers={"Content-Encoding": "gzip"})
    assert refused.status_code == 415


def test_a_body_that_dribbles_is_given_up(serving):
    def dribble():
        for _ in range(20):
            yield b" "
            time.sleep(0.05)

    refused = serving(body_timeout_s=0.3).post("/v1/chat/completions", None, content=dribble())
    assert refused.status_code == 408


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": NaN}', b'{"a":' * 50_000]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/api/generate"])
def test_what_is_no_request_is_a_400(served, path, body):
    assert served.post(path, None, content=body).status_code == 400


def test_an_image_that_is_a_bomb_is_refused(served):
    buffer = io.BytesIO()
    PIL.Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    refused = served.post("/api/generate", {"model": "tiny", "prompt": "?", "images": [image]})
    assert refused.status_code == 400
    assert "30000" in refused.json()["error"].replace(",", "")


def test_more_images_than_the_limit_are_refused(serving):
    server = serving(max_images=1)
    image = "https://example.com/a.png"
    content = [{"type": "image_url", "image_url": {"url": image}}] * 2
    refused = server.post("/v1/chat/completions", {**HI, "messages": [{"role": "user", "content": content}]})
    assert refused.status_code == 400
    assert "takes 1" in refused.json()["error"]["message"]


def test_the_servers_token_limit_holds(serving):
    server = serving(max_tokens=3)
    refused = server.post("/v1/chat/completions", {**HI, "max_tokens": 4})
    assert refused.status_code == 400
    unlimited = server.post("/v1/chat/completions", {**HI, "max_tokens": None}).json()
    assert unlimited["usage"]["completion_tokens"] == 3


def test_one_request_too_many_is_told_to_wait(serving):
    backend = Slow()
    server = serving(max_requests=2, backend=backend)
    with httpx.Client() as client:
        streams = [
            client.stream("POST", f"{server.url}/v1/chat/completions", json={**HI, "stream": True})
            for _ in "12"
        ]
        responses = [stream.__enter__() for stream in streams]
        refused = server.post("/v1/chat/completions", HI)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "llama_vision_requests_active 2.0" in server.get("/metrics").text
        for stream in streams:
            stream.__exit__(None, None, None)
        assert all(response.status_code == 200 for response in responses)
    assert _until(lambda: server.service.admission.num_active == 0)
    assert server.post("/v1/chat/completions", HI).status_code == 200


def test_a_request_that_takes_too_long_ends(serving):
    server = serving(timeout_s=0.3, backend=Slow())
    whole = server.post("/v1/chat/completions", HI)
    assert whole.status_code == 504
    assert "0.3 s" in whole.json()["error"]["message"]
    streamed = server.post("/v1/chat/completions", {**HI, "stream": True}).text
    assert '"content": "x"' in streamed
    assert "0.3 s" in streamed
    assert "[DONE]" not in streamed


@pytest.mark.parametrize(("path", "end"), [("/v1/chat/completions", "[DONE]"), ("/api/chat", '"done": true')])
def test_an_error_in_the_middle_of_a_stream_is_told(serving, path, end):
    server = serving(backend=Slow(error=LocalModelError("The card is on fire.")))
    body = {**HI, "stream": True}
    if path.startswith("/api"):
        del body["max_tokens"]
    streamed = server.post(path, body).text
    assert "The card is on fire." in streamed
    assert end not in streamed


def test_an_error_that_is_not_ours_is_not_quoted(serving):
    server = serving(backend=Slow(error=RuntimeError("/home/me/secret.txt")))
    failed = server.post("/v1/chat/completions", HI)
    assert failed.status_code == 500
    assert "secret" not in failed.text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_work(serving, stream):
    backend = Slow(num_events=1000)
    server = serving(backend=backend)
    timeout = httpx.Timeout(5, read=0.5)
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json={**HI, "stream": stream}, timeout=timeout
        ) as reply,
    ):
        next(reply.iter_bytes())
    assert _until(lambda: backend.num_running == 0, 1.0)
    assert server.service.admission.num_active == 0
    assert _until(lambda: f'status="{CLIENT_CLOSED}"' in server.get("/metrics").text)


def test_the_engine_drops_the_sequence_of_a_client_that_leaves(serving):
    server = serving(local=LocalSettings(max_batch_size=2))
    long = {"type": "array", "items": {"type": "integer"}, "minItems": 300}
    body = {"model": "tiny", "prompt": "Hi", "format": long}
    with httpx.stream("POST", f"{server.url}/api/generate", json=body, timeout=60) as response:
        lines = response.iter_lines()
        assert '"done": false' in next(lines)
        assert server.service.admission.num_active == 1, list(lines)[-3:]
    assert _until(lambda: server.service.admission.num_active == 0, 2.0)


def test_while_it_drains_replies_end_and_new_requests_are_sent_away(serving):
    backend = Slow(pause_s=0.02, num_events=30)
    server = serving(backend=backend)
    replies = []
    asking = threading.Thread(target=lambda: replies.append(server.post("/v1/chat/completions", HI)))
    asking.start()
    assert _until(lambda: backend.num_running == 1)
    server.server.handle_exit(15, None)
    assert _until(lambda: server.service.admission.draining)
    assert server.post("/v1/chat/completions", HI).status_code == 503
    assert server.get("/health").json() == {"status": "draining"}
    asking.join(10)
    assert replies[0].json()["choices"][0]["message"]["content"] == "x" * 30
    assert _until(lambda: server.server.should_exit)


class TwoCalls:
    """A backend that calls two tools."""

    async def astream(self, request):
        yield Started(request.model)
        for index, name in enumerate(("f", "g")):
            yield ToolCallDelta(index, f"call_{index}", name, "{}")
        yield Finished("tool_calls")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("parallel", "names"), [(True, "fg"), (None, "fg"), (False, "f")])
def test_where_calls_must_not_be_parallel_there_is_one(serving, stream, parallel, names):
    server = serving(backend=TwoCalls())
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        reply = client.chat.completions.create(
            model="tiny",
            messages=HI["messages"],
            tools=[{"type": "function", "function": {"name": name}} for name in "fg"],
            parallel_tool_calls=parallel,
            stream=stream,
        )
        if stream:
            calls = [call for chunk in reply for call in chunk.choices[0].delta.tool_calls or ()]
        else:
            calls = reply.choices[0].message.tool_calls
    assert "".join(call.function.name for call in calls) == names


@pytest.mark.parametrize(
    ("size", "end", "status"),
    [
        (server._MAX_HEAD_BYTES - 1000, b"\r\nconnection: close\r\n\r\n", b"200"),
        (server._MAX_HEAD_BYTES + 1000, b"", b"400"),
    ],
)
def test_a_head_at_the_limit_is_read_and_one_that_goes_on_is_not(served, size, end, status):
    address = httpx.URL(served.url)
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        line = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
        fields = b"".join(b"x-%d: %s\r\n" % (number, b"x" * 1000) for number in range(size // 1010))
        connection.sendall(line + fields + b"x-last: " + b"x" * (size % 1010) + end)
        assert connection.recv(1000).split()[1] == status


def test_a_head_that_does_not_arrive_in_time_is_given_up(serving, monkeypatch):
    monkeypatch.setattr(server, "_HEAD_TIMEOUT_S", 0.3)
    address = httpx.URL(serving().url)
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost:")
        assert connection.recv(1000) == b""

"""64 clients at once, some of which leave, read slowly, or send nonsense: nobody else notices, and nothing is left."""

import contextlib
import gc
import json
import os
import random
import resource
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.serve import measure

pytestmark = pytest.mark.slow

NUM_CLIENTS = 64
SOAK_S = float(os.environ.get("LLAMA_VISION_SOAK_S", "300"))
QUESTIONS = {"What is two plus two?": None, "Hi": None, "Say hi": None}


def _body(question, *, stream):
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": question}],
        "stream": stream,
        "temperature": 0,
    }


def _resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class _Client:
    """One client with a chance of its own; it records what it was told."""

    def __init__(self, address, expected, seed):
        self.address, self.expected, self.random = address, expected, random.Random(seed)
        self.num_right, self.wrong = 0, []

    def run(self, end):
        with httpx.Client(base_url=self.address, timeout=120) as http:
            while time.monotonic() < end:
                self.random.choice(
                    (self.ask, self.ask, self.ask, self.leave, self.read_slowly, self.send_nonsense)
                )(http)

    def ask(self, http):
        question = self.random.choice(list(self.expected))
        reply = http.post("/v1/chat/completions", json=_body(question, stream=False))
        self.check(
            question, reply.json()["choices"][0]["message"]["content"] if reply.is_success else reply.text
        )

    def leave(self, http):
        with http.stream("POST", "/v1/chat/completions", json=_body("Hi", stream=True)) as reply:
            pieces = reply.iter_raw()
            for _ in range(self.random.randrange(3)):
                next(pieces, None)

    def read_slowly(self, http):
        question = self.random.choice(list(self.expected))
        text = ""
        with http.stream("POST", "/v1/chat/completions", json=_body(question, stream=True)) as reply:
            for line in reply.iter_lines():
                time.sleep(self.random.random() * 0.05)
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
        self.check(question, text)

    def send_nonsense(self, http):
        body = self.random.randbytes(self.random.randrange(2000))
        reply = http.post("/v1/chat/completions", content=body)
        if reply.status_code != 400:
            self.wrong.append(("nonsense", reply.status_code))

    def check(self, question, text):
        if text == self.expected[question]:
            self.num_right += 1
        else:
            self.wrong.append((question, text))


def test_a_soak_loses_nothing_and_leaves_nothing(serving):
    server = serving()
    expected = {
        question: server.post("/v1/chat/completions", _body(question, stream=False)).json()["choices"][0][
            "message"
        ]["content"]
        for question in QUESTIONS
    }
    clients = [_Client(server.url, expected, seed) for seed in range(NUM_CLIENTS)]
    start = time.monotonic()
    threads = [threading.Thread(target=client.run, args=(start + SOAK_S,)) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(SOAK_S / 3)
    gc.collect()
    early = _resident_bytes()
    for thread in threads:
        thread.join(SOAK_S + 120)
    assert not any(thread.is_alive() for thread in threads)
    assert [wrong for client in clients for wrong in client.wrong] == []
    assert all(client.num_right for client in clients)
    time.sleep(1)
    assert server.service.admission.num_active == 0
    gc.collect()
    grown = _resident_bytes() - early
    print(
        f"{sum(client.num_right for client in clients)} replies, {grown / 2**20:.0f} MiB more than after a third"
    )
    assert grown < 100 * 2**20


def test_a_body_of_a_gigabyte_is_refused_without_reading_it(serving):
    server = serving()
    before = _resident_bytes()
    with socket.create_connection(
        ("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30
    ) as connection:
        connection.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n"
        )
        assert b" 413 " in connection.recv(1000).split(b"\r\n")[0]

    def endless():
        for _ in range(1024):
            yield bytes(2**20)

    with contextlib.suppress(httpx.WriteError):  # the server has closed the connection
        assert server.post("/api/chat", None, content=endless()).status_code == 413
    assert _resident_bytes() - before < 300 * 2**20


def test_over_http_the_engine_is_not_much_slower():
    """Beside other tests a clock says little: `make bench` compares the two ways on a quiet machine."""
    found = measure(rounds=3)
    assert min(found["in_process_s"]) / min(found["http_s"]) > 0.5

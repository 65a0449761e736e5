"""Tokens per second over HTTP, from `llama-vision serve`, beside the same requests in process: 16 clients, one engine.

`make bench` runs it. All figures come from this one run, in alternating rounds; the share is that of each way's best round.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from llama_vision import ChatRequest, ResponseFormat, SamplingParams
from llama_vision.backends import create_backend
from llama_vision.core.events import TextDelta
from llama_vision.core.messages import single_turn_messages
from llama_vision.providers import find_provider
from llama_vision.serve import ServeSettings, serving

ROUNDS, GOAL = 7, 0.9
CONCURRENCY, REQUESTS, MAX_TOKENS = 16, 64, 100
SCHEMA = {"type": "string", "minLength": 3 * MAX_TOKENS}  # or the toy model would stop after two tokens
BODY = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "temperature": 0,
    "max_tokens": MAX_TOKENS,
    "response_format": {"type": "json_schema", "json_schema": {"name": "text", "schema": SCHEMA}},
}
REQUEST = ChatRequest(
    "tiny",
    single_turn_messages("Hi"),
    response_format=ResponseFormat("json_schema", "text", SCHEMA),
    sampling=SamplingParams(max_tokens=MAX_TOKENS, temperature=0),
)
CLIENTS = """
import json, socket, sys, time
from concurrent.futures import ThreadPoolExecutor

port, body, concurrency, requests = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
head = b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"

def ask(_):
    received = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4096)  # wakes at so many bytes, or at the end
        connection.sendall(head % len(body) + body)
        while piece := connection.recv(65536):
            received += piece
    assert received.endswith(b"data: [DONE]\\n\\n\\r\\n0\\r\\n\\r\\n"), received
    return received.count(b"data: ")

start = time.perf_counter()
with ThreadPoolExecutor(concurrency) as pool:
    chunks = sum(pool.map(ask, range(requests)))
print(json.dumps([time.perf_counter() - start, chunks]))
"""
"""In a process of their own. They stand for other machines, so they take as little of this one's cores as they can."""


def over_http(address, requests=REQUESTS):
    """Return the seconds and the chunks of all requests."""
    arguments = [address.rpartition(":")[2], json.dumps(BODY), str(CONCURRENCY), str(requests)]
    done = subprocess.run([sys.executable, "-c", CLIENTS, *arguments], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def in_process(backend, requests=REQUESTS):
    """Return the seconds and the pieces of text of all requests."""

    def ask(_):
        return sum(isinstance(event, TextDelta) for event in backend.stream(REQUEST))

    start = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        pieces = sum(pool.map(ask, range(requests)))
    return time.perf_counter() - start, pieces


def measure(rounds=ROUNDS):
    """Return the seconds of each round over HTTP, and in process."""
    backend = create_backend(find_provider("local"))
    with serving("tiny", ServeSettings(port=0)) as address:
        chunks, pieces = over_http(address)[1], in_process(backend)[1]  # loads the model
        # Each reply has four more: its role, its end, `[DONE]`, and what the last piece of text may be split into.
        assert pieces > REQUESTS * MAX_TOKENS / 2, pieces
        assert pieces <= chunks <= pieces + 4 * REQUESTS, (chunks, pieces)
        found = [(over_http(address)[0], in_process(backend)[0]) for _ in range(rounds)]
    return {"http_s": [http for http, _ in found], "in_process_s": [local for _, local in found]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    found = measure()
    share = min(found["in_process_s"]) / min(found["http_s"])
    if options.json:
        print(json.dumps({**found, "share": share}))
        return
    print(
        f"{f'{REQUESTS} replies of {MAX_TOKENS} tokens to {CONCURRENCY} clients':<42}{'best s':>10}{'median':>10}"
    )
    for name, label in {"in_process_s": "in process", "http_s": "over HTTP"}.items():
        print(f"{label:<42}{min(found[name]):>10.2f}{sorted(found[name])[len(found[name]) // 2]:>10.2f}")
    missed = "" if share >= GOAL else "   MISSED"
    print(f"{'over HTTP, of the speed in process':<42}{share:>10.0%}   goal {GOAL:.0%}{missed}")


if __name__ == "__main__":
    main()

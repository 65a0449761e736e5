"""`llama-vision serve` as a process: one line when it is ready, and a graceful end."""

import re
import signal
import subprocess
import sys
import threading

import httpx
import pytest

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "import sys; from llama_vision.cli import main; sys.exit(main())", "serve"]
ENDLESS = {"temperature": 50.0, "top_k": 1000, "seed": 26, "max_tokens": 1500}


@pytest.fixture
def process():
    with subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_sigterm_lets_a_reply_end(process):
    line = process.stdout.readline()
    address = re.search(r"(http://localhost:\d+)/v1", line)[1]
    assert f"base_url='{address}/v1'" in line
    received = []

    def ask():
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **ENDLESS}
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=60) as response:
            received.extend(response.iter_lines())

    asking = threading.Thread(target=ask)
    asking.start()
    while len(received) < 5:
        asking.join(0.01)
    process.send_signal(signal.SIGTERM)
    asking.join(60)
    assert "data: [DONE]" in received
    assert process.wait(10) == 0
    log = process.stderr.read()
    assert "/v1/chat/completions 200" in log
    assert "Traceback" not in log


def test_what_can_not_be_served_says_why():
    for arguments, problem in (
        (["--host", "0.0.0.0"], "--no-auth"),  # noqa: S104 - refused
        (["--quantization", "int3"], "quantization"),
        (["--device", "cpu", "--device-map", "auto"], "leave one out"),
        (["--model", "/nowhere"], "/nowhere"),
    ):
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode in (1, 2)
        assert problem in done.stderr
        assert "Traceback" not in done.stderr

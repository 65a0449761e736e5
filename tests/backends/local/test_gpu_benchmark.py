"""The GPU benchmark runs, here with a small shape on the CPU."""

import json
import subprocess
import sys

import pytest
import torch

DECODED = [f"{kind}, batch {size}" for kind in ("bfloat16", "int8") for size in (1, 4)]
REQUESTED = [
    "8 images x 6 tokens, 4 slots, first time",
    "8 images x 6 tokens, 4 slots, second time",
    "prompt of 200 tokens",
    "4 requests about one image",
    "4 replies in JSON",
    "requests that come and go",
]


def run(*options):
    command = [sys.executable, "-m", "benchmarks.local_gpu", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=590, check=False)


@pytest.mark.slow
def test_every_measurement_is_made():
    done = run("--tiny")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert len(lines) == len(found)
    assert found["replies as on the CPU"] == {"equal": 32, "of": 32}
    assert found["device"] == {"name": "cpu of this machine"}
    assert min(found["speeds"].values()) > 0
    assert "Hopper" in found["fp8"]["failed"]
    for name in DECODED:
        assert found[name]["tokens/s"] > 0, found[name]
        assert 0 < found[name]["share of the floor"] < 1, found[name]
    for name in REQUESTED:
        assert found[name]["tokens/s"] > 0, found[name]
    for name in ("8 new images together", "generate, 8 new images together"):
        assert found[name]["ms an image"] > 0, found[name]
    assert found["generate, prompt of 200 tokens"]["tokens/s"] > 0
    # On a busy machine 16 tokens more of so small a model may take no longer.
    for name in ("generate, batch 1", "generate, batch 4"):
        assert found[name].get("tokens/s", 0) > 0 or "no longer" in found[name]["failed"], found[name]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="takes minutes of the GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 1
    assert "NVIDIA GPU, and there is none here" in done.stderr

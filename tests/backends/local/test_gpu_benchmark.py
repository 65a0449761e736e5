"""The GPU benchmark runs, here with a small shape on the CPU."""

import json
import subprocess
import sys

import pytest
import torch


def run(*options):
    command = [sys.executable, "-m", "benchmarks.local_gpu", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_every_measurement_is_made():
    done = run("--tiny", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("agreement") == {"equal": 32, "of": 32}
    assert found.pop("memory GB/s") > 0
    assert found.pop("device") == "cpu of this machine"
    assert "Hopper" in found.pop("fp8")["failed"]
    ours = {f"{kind}, batch {size}" for kind in ("bfloat16", "int8") for size in (1, 4)}
    assert set(found) == ours | {"generate, batch 1", "generate, batch 4"}
    for name in ours:
        assert found[name]["tokens/s"] > 0, found[name]
        assert 0 < found[name]["share of the floor"] < 1, found[name]
    # On a busy machine 16 tokens more of so small a model may take no longer.
    for name in set(found) - ours:
        assert "tokens/s" in found[name] or "took no longer" in found[name]["failed"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="takes minutes of the GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 1
    assert "NVIDIA GPU, and there is none here" in done.stderr

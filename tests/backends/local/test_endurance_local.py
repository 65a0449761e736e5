"""The local model over many requests of all kinds: `benchmarks/local.py` does the same for longer.

Each test runs in a process of its own, where no coverage is measured, and is timed in CPU time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "local.py"


def figures(*options):
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, BENCHMARK, *options, "--json"],
        capture_output=True,
        check=False,
        text=True,
        timeout=1200,
        env=quiet,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_batch_of_sixteen_is_faster_than_one_after_another():
    assert figures("--together")["16 together"] > 2.0  # 4 on an idle machine


@pytest.mark.slow
def test_guided_decoding_costs_little_beside_a_decode_step():
    found = figures("--masks")
    assert max(found.values()) < 0.25, found  # 0.08 on an idle machine


@pytest.mark.slow
def test_memory_is_flat_over_many_requests():
    found = figures("--requests", "600")
    assert found["answered"] == 600
    _, early, *_, last = found["megabytes"]
    assert last - early < 20, found


@pytest.mark.slow
def test_a_soak_loses_no_request():
    """Five minutes with LLAMA_VISION_SOAK_S=300."""
    seconds = float(os.environ.get("LLAMA_VISION_SOAK_S", "8"))
    found = figures("--soak", str(seconds))
    assert found["lost"] == []
    assert sum(found["counts"].values()) > 10, found
    # Caches are full after half of a long soak; a short one only begins.
    middle, last = found["megabytes"][len(found["megabytes"]) // 2], found["megabytes"][-1]
    assert last - middle < (25 if seconds >= 120 else 150), found

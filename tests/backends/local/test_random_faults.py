"""Whatever happens in whatever order, no call hangs, and the process ends in peace; see `random_faults.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "random_faults.py"

ENVIRONMENT = {**os.environ, "MKL_DISABLE_FAST_MM": "1"}
"""MKL's allocator has locks for 1,023 threads, and one for all that come later, so for thousands that are killed here: where
one of these ends natively during a fork, the child finds it locked (`mm_account_ptr_by_tid`), and no sgemm of it returns."""


def survive(seed, seconds):
    command = [sys.executable, SCRIPT, str(seed), str(seconds)]
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, timeout=seconds + 180, env=ENVIRONMENT
    )
    assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}: {done.stderr}"
    assert "'replied'" in done.stdout


def test_random_faults_leave_nobody_waiting():
    survive(seed=1, seconds=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_random_faults_for_five_minutes(seed):
    survive(seed, seconds=30)

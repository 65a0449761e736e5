"""Whatever happens in whatever order, no call hangs, and the process ends in peace; see `random_faults.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "random_faults.py"


def survive(seed, seconds):
    command = [sys.executable, SCRIPT, str(seed), str(seconds)]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=seconds + 180)
    assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}: {done.stderr}"
    assert "'replied'" in done.stdout


def test_random_faults_leave_nobody_waiting():
    survive(seed=1, seconds=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_random_faults_for_five_minutes(seed):
    survive(seed, seconds=30)

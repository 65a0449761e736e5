"""200 damaged and hostile files: none hangs or crashes the process, or fills the memory."""

import json
import subprocess
import sys

import pytest

from tests.images.damaged import COUNT, open_as_users_do, spoiled_files

MAX_MB = 1000


def test_a_few_damaged_files_are_shown_or_refused():
    files = spoiled_files(40)
    assert files == spoiled_files(40)
    assert {open_as_users_do(data) for _, data in files} == {"shown", "refused"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_200_damaged_files_never_hang_crash_or_fill_the_memory():
    command = [sys.executable, "-W", "error", "-m", "tests.images.damaged"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["files"] == COUNT
    assert found["slowest"][1] < 60
    assert found["peak_mb"] < MAX_MB
    assert found["peak_renderer_mb"] < MAX_MB
    shown = {name for name, outcome in found["outcomes"].items() if outcome == "shown"}
    assert {"a photo of 2.7 GB.pdf", "200 inches.pdf", "pages in a ring.tiff", "8600 x 8600.png"} <= shown
    assert not {"forms in forms.pdf", "2 GB of lines.pdf", "13000 x 13000.png", "30000 x 30000.png"} & shown

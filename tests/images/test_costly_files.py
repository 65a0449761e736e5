"""No file takes more than three seconds and 600 MB to prepare, whatever it claims: it is shown, or refused by name.

Each is prepared in a process of its own, which reports what it took: `python -m tests.images.test_costly_files NAME`.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_vision.core.errors import ImageError
from llama_vision.images import image_from_bytes
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.decode import decode
from llama_vision.images.prepare import prepare_image
from tests.images.costly_files import REFUSED, SHOWN

SECONDS, MEGABYTES = 3.0, 600
MAX_SENT_BYTES = 2_000_000


def measure(path, how):
    """Prepare a file for a hosted model, or decode it at full size, and tell what it took."""
    data = Path(path).read_bytes()
    before = time.process_time()
    began = time.perf_counter()
    try:
        image = image_from_bytes(data)
        if how == "hosted":
            outcome = f"sent: {len(prepare_image(image, ImageConstraints()).data)}"
        else:
            outcome = f"decoded: {decode(image.data, lambda *size: size).image.size}"
    except ImageError as error:
        outcome = f"refused: {error}"
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - before,
        "megabytes": peak_megabytes(),
        "outcome": outcome,
    }


def peak_megabytes():
    """Read the peak of this program alone; that of `getrusage` includes the process from which it was started."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1000


def measured(tmp_path, make, how):
    path = tmp_path / "image"
    path.write_bytes(make())
    command = [sys.executable, "-m", "tests.images.test_costly_files", str(path), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def check(found):
    assert found["cpu_seconds"] < SECONDS, found  # of its own: other tests may keep the processor busy
    assert found["megabytes"] < MEGABYTES, found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hosted", "local"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_dear_is_refused(tmp_path, name, how):
    found = measured(tmp_path, REFUSED[name], how)
    check(found)
    assert found["outcome"].startswith("refused: ")
    assert "can't be decoded" in found["outcome"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hosted", "local"])
@pytest.mark.parametrize("name", SHOWN)
def test_what_is_large_is_shown(tmp_path, name, how):
    found = measured(tmp_path, SHOWN[name], how)
    check(found)
    kind, _, detail = found["outcome"].partition(": ")
    assert kind == {"hosted": "sent", "local": "decoded"}[how]
    if how == "hosted":
        assert int(detail) < MAX_SENT_BYTES


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(*sys.argv[1:])))

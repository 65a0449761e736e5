"""Installs each extra alone, asks `pip check`, and uses it: `python -m tests.check_extras [extra ...]`. It takes a network and minutes."""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.test_extras import PACKAGES

ROOT = Path(__file__).resolve().parents[1]


def check(extra):
    """Say what is wrong with an environment that has one extra only; "" where nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        target = f"{ROOT}[{extra}]" if extra else str(ROOT)
        commands = [
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", target],
            ["-m", "pip", "check"],
            [
                "-c",
                "; ".join(f"import {name}" for name in ["llama_vision", *sorted(PACKAGES.get(extra, ()))]),
            ],
        ]
        for command in commands:
            done = subprocess.run([python, *command], capture_output=True, text=True, check=False, cwd=folder)
            if done.returncode:
                return (done.stdout + done.stderr).strip()[-1000:]
    return ""


def main():
    wrong = 0
    for extra in sys.argv[1:] or ["", *PACKAGES]:
        text = check(extra)
        wrong += bool(text)
        print(f"{extra or '(none)'}: {text or 'clean'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

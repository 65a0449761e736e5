"""Runs a script in a Python of its own, for tests of what is left behind at the end."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.emulator import Emulator

ROOT = Path(__file__).resolve().parents[3]
PREPARED = """
import asyncio, gc, logging, os, threading
from llama_vision import find_provider
from llama_vision.backends import create_backend
from tests.emulator.asking import aask, ask, question

logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode complains of slow machines
backend = create_backend(
    find_provider("deepinfra"), base_url=os.environ["EMULATOR"], api_key=os.environ["EMULATOR_KEY"], max_retries=0
)
"""


def run_alone(emulator: Emulator, script: str, *options: str) -> None:
    """Run a script in a Python of its own, where every warning is an error and has to be the last word."""
    environment = {**os.environ, "EMULATOR": emulator.base_url, "EMULATOR_KEY": emulator.api_key or ""}
    options = options or ("-W", "error", "-X", "dev")
    finished = subprocess.run(
        [sys.executable, *options, "-c", PREPARED + textwrap.dedent(script)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stderr == ""
    assert finished.returncode == 0

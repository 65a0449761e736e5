"""The README tells the truth: its table is made from the records, and its Python runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_vision.cli.providers import markdown_table
from llama_vision.providers import PROVIDERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

KEYS = {name for provider in PROVIDERS.values() for name in provider.key_env}
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in KEYS
}  # so that nobody is called


def test_the_table_of_providers_is_that_of_the_records():
    shown = re.search(r"<!-- providers: .*?-->\n(.*?)\n<!-- end of providers -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1] == markdown_table(), "put the output of `llama-vision providers --markdown` there"


@pytest.mark.parametrize("code", PYTHON, ids=[f"block {number}" for number, _ in enumerate(PYTHON, 1)])
def test_its_python_runs(code, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        check=False,
        text=True,
        cwd=tmp_path,
        env={**ENVIRONMENT, "TQDM_DISABLE": "1"},  # bars are for people
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_it_names_every_command_of_the_makefile_that_users_need():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"^make ([a-z]+)|`make ([a-z]+)", README, re.MULTILINE):
        assert "".join(command) in targets

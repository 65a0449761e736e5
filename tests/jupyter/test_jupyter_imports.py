"""What `llama_vision.jupyter` loads, and what it does without."""

import subprocess
import sys

import pytest

HEAVY = {
    "IPython",
    "ipywidgets",
    "langchain_core",
    "llama_index",
    "llama_index_core",
    "torch",
    "PIL",
    "httpx",
}
WITHOUT_IPYTHON = "import sys; sys.modules['IPython'] = None\nfrom llama_vision.jupyter import *\n"


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("use", ["", "show(iter(['Hi', '!']))"])
def test_it_loads_neither_ipython_nor_a_framework(use):
    code = f"import sys\nfrom llama_vision.jupyter import show\n{use}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & HEAVY


def test_a_terminal_does_without_ipython():
    done = python(WITHOUT_IPYTHON + "show(iter(['Hi', '!'])); show_providers()")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Hi!\n[tokens not told")


@pytest.mark.parametrize("use", ["show('Hi', notebook=True)", "show_providers(notebook=True)"])
def test_a_notebook_without_ipython_is_told_what_to_install(use):
    done = python(WITHOUT_IPYTHON + use)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("llama_vision.core.errors.MissingDependencyError: IPython is not installed")
    assert "pip install 'llama-vision[jupyter]'" in last
    assert "notebook=False" in last

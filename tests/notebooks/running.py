"""Runs notebooks from top to bottom, each in a kernel of its own: for the tests, and for `make notebooks`, which keeps the outputs."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from llama_vision.providers import PROVIDERS

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LIMIT_S = 300  # for one cell, where the machine does many other things; alone, none takes 20

_OURS = {"LLAMA_VISION_PROVIDER", "LLAMA_VISION_MODEL"}
_KEYS = {name for provider in PROVIDERS.values() for name in (*provider.key_env, *provider.account_env)}


def environment():
    """Say what the kernel knows: no key, so that nobody is called, no hub and no GPU, so that all machines do the same."""
    ours = {name: value for name, value in os.environ.items() if name not in _KEYS | _OURS}
    return {
        **ours,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "",
    }


def executed(notebook, folder, client=NotebookClient):
    """Run a notebook; a cell that fails raises nbclient's CellExecutionError."""
    running = client(
        notebook,
        timeout=LIMIT_S,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # it warns that its port, on this machine, is not encrypted
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    return running.execute(env=environment())


def main(names):
    """Run those whose names are given, else all, and keep what they put out."""
    for path in NOTEBOOKS:
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(nbformat.read(path, as_version=4), folder)
        notebook.metadata = {
            name: value for name, value in notebook.metadata.items() if name != "language_info"
        } | {"language_info": {"name": "python"}}  # and not which Python it was
        path.write_text(nbformat.writes(notebook) + "\n")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])

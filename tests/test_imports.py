"""Who may import whom, and what importing the package loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llama_vision

ROOT = Path(llama_vision.__file__).parent
ORDER = [
    "core",
    "images",
    "toolcalls",
    "dialects",
    "providers",
    "adaptation",
    "structured",
    "backends",
    "captions",
]
"""Each room may import from itself and from those before it."""

FACES = {"langchain", "llamaindex", "cli", "demo", "jupyter", "testing", "ray"}
"""What users meet: may import any room, and none of each other but for the demo, which shows both adapters."""

ALLOWED = {
    **{room: set(ORDER[: place + 1]) | {"version"} for place, room in enumerate(ORDER)},
    **{face: {*ORDER, "version", face} for face in FACES},
    "demo": {"demo", "langchain", "llamaindex"},
    "__init__": {*ORDER, "version"},
    "version": set(),
}
FRAMEWORKS = {"IPython", "langchain_core", "llama_index", "torch", "transformers", "llguidance", "PIL", "ray"}
MAY_USE = {
    "langchain": {"langchain_core"},
    "llamaindex": {"llama_index", "PIL"},
    "demo": {"langchain_core", "llama_index"},
    "backends": {"torch", "transformers", "llguidance", "PIL"},
    "images": {"PIL"},
    "jupyter": {"IPython"},
    "ray": {"ray"},
}


def room_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports_of(path):
    """Every module a file imports, also inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_in_one_direction(path):
    room = room_of(path)
    for module in imports_of(path):
        first, *rest = module.split(".")
        if first == "llama_vision" and rest:
            assert rest[0] in ALLOWED[room], f"{room} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_room_knows_only_its_own_framework(path):
    room = room_of(path)
    used = {module.split(".")[0] for module in imports_of(path)} & FRAMEWORKS
    assert used <= MAY_USE.get(room, set())


def test_dialects_do_no_input_or_output():
    forbidden = {"socket", "httpx", "os", "time", "asyncio", "threading", "random", "pathlib", "requests"}
    for path in (ROOT / "dialects").glob("*.py"):
        used = {module.split(".")[0] for module in imports_of(path)}
        assert not used & forbidden, path.name


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("llama_vision", FRAMEWORKS | {"llama_index_core", "httpx"}),
        ("llama_vision.langchain", {"llama_index", "torch", "transformers", "PIL"}),
        ("llama_vision.llamaindex", {"langchain_core", "torch", "transformers"}),
        ("llama_vision.testing", FRAMEWORKS | {"llama_index_core", "httpx", "pytest"}),
        ("llama_vision.ray", FRAMEWORKS | {"llama_index_core", "httpx", "numpy", "pandas", "pyarrow"}),
        ("llama_vision.jupyter", FRAMEWORKS | {"llama_index_core", "httpx", "ipywidgets"}),
        ("llama_vision.cli", {"langchain_core", "llama_index", "torch", "transformers", "PIL", "httpx"}),
    ],
)
def test_importing_loads_no_other_framework(module, absent):
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "llama_vision" in loaded
    assert not set(loaded) & absent

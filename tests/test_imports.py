"""Who may import whom, and what importing the package loads."""

import ast
import functools
import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
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

FACES = {"langchain", "llamaindex", "cli", "demo", "jupyter", "testing", "ray", "serve"}
"""What users meet: may import any room, and none of each other but for the demo, which shows both adapters."""

ALLOWED = {
    **{room: set(ORDER[: place + 1]) | {"version"} for place, room in enumerate(ORDER)},
    **{face: {*ORDER, "version", face} for face in FACES},
    "cli": {*ORDER, "version", "cli", "serve"},
    "demo": {"demo", "langchain", "llamaindex", "cli"},
    "__init__": {*ORDER, "version"},
    "__main__": {"cli"},
    "version": set(),
    "prompts": {"prompts"},
}
FRAMEWORKS = {
    "IPython",
    "langchain_core",
    "llama_index",
    "torch",
    "transformers",
    "llguidance",
    "PIL",
    "ray",
    "starlette",
    "uvicorn",
    "prometheus_client",
}
MAY_USE = {
    "langchain": {"langchain_core"},
    "llamaindex": {"llama_index", "PIL"},
    "demo": {"langchain_core", "llama_index"},
    "backends": {"torch", "transformers", "llguidance", "PIL"},
    "images": {"PIL"},
    "jupyter": {"IPython"},
    "ray": {"ray"},
    "serve": {"starlette", "uvicorn", "prometheus_client"},
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


def executed_imports(node):
    """Every import statement that runs when the module is imported: none in functions, none for type checkers only."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                pass
            case ast.Import() | ast.ImportFrom():
                yield child
            case _:
                yield from executed_imports(child)


def import_graph(root):
    """Which modules of a package each of its modules imports, by name."""
    files = {
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    graph = {}
    for name, path in files.items():
        imported = set()
        for node in executed_imports(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            else:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= inner & files.keys() or {node.module}
        graph[name] = imported & files.keys() - {name}
    return graph


def find_circle(graph):
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(error.args[1])
    return None


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


def test_modules_import_in_no_circle():
    graph = import_graph(ROOT)
    assert "llama_vision.core.messages" in graph["llama_vision.core.request"]
    assert find_circle(graph) is None


@pytest.mark.parametrize(
    ("statement", "circle"),
    [
        ("from package.one import name", "package.one -> package.two -> package.one"),
        ("import package.one", "package.one -> package.two -> package.one"),
        ("def late():\n    from package.one import name", None),
        ("if TYPE_CHECKING:\n    from package.one import name", None),
    ],
)
def test_a_circle_is_noticed(statement, circle, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("from package import two")
    (package / "two.py").write_text(statement)
    found = find_circle(import_graph(package))
    assert circle is None if found is None else set(found.split(" -> ")) == set(circle.split(" -> "))


def test_dialects_do_no_input_or_output():
    forbidden = {"socket", "httpx", "os", "time", "asyncio", "threading", "random", "pathlib", "requests"}
    for path in (ROOT / "dialects").rglob("*.py"):
        used = {module.split(".")[0] for module in imports_of(path)}
        assert not used & forbidden, path.name


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("llama_vision", FRAMEWORKS | {"llama_index_core", "httpx", "pydantic", "asyncio"}),
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


def test_every_public_name_is_imported_with_its_first_use():
    code = (
        "import llama_vision; names = set(llama_vision.__all__); assert names <= set(dir(llama_vision)); "
        "from llama_vision import *; assert names - {'__version__'} <= set(globals()), names - set(globals())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert llama_vision.Page is llama_vision.Page
    with pytest.raises(AttributeError, match="no attribute 'Pages'"):
        _ = llama_vision.Pages


EXTRAS_OF = {
    "images": {"local", "pdf"},
    "backends": {"local", "aiohttp", "cuda", "gguf", "otel"},
    "langchain": {"langchain", "agents"},
    "llamaindex": {"llamaindex"},
    "demo": {"langchain", "llamaindex"},
    "cli": {"completion"},
    "jupyter": {"jupyter"},
    "ray": {"ray"},
    "serve": {"serve"},
    "testing": {"test"},
}
"""What a room may import beside the package's own dependencies."""


@functools.cache
def requirements():
    """Names of the distributions that each extra declares; under "" those of the package itself."""
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in texts}
        for extra, texts in extras.items()
    }


def imported_packages(node):
    """The packages of others that a file imports at any time, other than for type checkers only."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                pass
            case ast.Import():
                yield from (alias.name.split(".")[0] for alias in child.names)
            case ast.ImportFrom():
                yield child.module.split(".")[0]
            case _:
                yield from imported_packages(child)


distributions_of = functools.cache(importlib.metadata.packages_distributions)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_is_declared(path):
    declared = requirements()
    allowed = set().union(*(declared[extra] for extra in {"", *EXTRAS_OF.get(room_of(path), ())}))
    for package in (
        set(imported_packages(ast.parse(path.read_text()))) - sys.stdlib_module_names - {"llama_vision"}
    ):
        distributions = {name.lower().replace("_", "-") for name in distributions_of()[package]}
        assert distributions & allowed, f"{package} is of {distributions}, which is not declared"

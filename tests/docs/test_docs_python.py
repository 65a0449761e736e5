"""All Python of README and docs runs, without a key and without a network, and prints what the page says.

A block of README stands alone; the blocks of a page of docs build on one another, and run in their order.
"""

import os

import pytest

from llama_vision.providers import PROVIDERS
from tests.docs.markdown import (
    CONTRIBUTING,
    PAGES,
    README,
    ROOT,
    blocks,
    outputs,
    promised_output,
    python_blocks,
    script,
)
from tests.docs.run_scripts import Scripts

KEYS = {name for provider in PROVIDERS.values() for name in provider.key_env}
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in KEYS
}  # so that nobody is called
LANGUAGES = {"python", "python notest", "sh", "text", "json", "mermaid"}
# LlamaIndex's agents look at all attributes of themselves, those that pydantic gave up among them.
WARNINGS = ["-W", "error", "-W", "ignore::DeprecationWarning:inspect"]

RUNS = [(README, [block]) for block in python_blocks(README)]
RUNS += [(path, found) for path in (CONTRIBUTING, *PAGES) if (found := python_blocks(path))]


# Pages that load the local model, or wait for something, several times.
SLOW = {"captions.md", "rag.md", "testing.md", "failover.md", "serve.md", "datasets.md"}


def name_of(run):
    path, chosen = run
    place = f":{chosen[0].line}" if path == README else ""
    return f"{path.relative_to(ROOT)}{place}"


@pytest.fixture(scope="module")
def scripts():
    # Bars are for people.
    scripts = Scripts(WARNINGS, {**ENVIRONMENT, "TQDM_DISABLE": "1", "PYTHONIOENCODING": "utf-8"})
    yield scripts
    scripts.close()


@pytest.mark.parametrize(
    "run",
    [pytest.param(run, id=name_of(run), marks=[pytest.mark.slow] * (run[0].name in SLOW)) for run in RUNS],
)
def test_python_runs(run, tmp_path, scripts):
    path, chosen = run
    file = tmp_path / f"{path.stem}.py"
    file.write_text(script(path, chosen), encoding="utf-8")
    status, stdout, stderr = scripts.run(file)
    assert status == 0, stderr
    assert not stderr
    for block, printed in zip(chosen, outputs(stdout, chosen), strict=True):
        promised = promised_output(path, block)
        assert printed, f"{path.name}:{block.line} shows nothing"
        assert promised in {None, printed}, f"{path.name}:{block.line} prints something else"


@pytest.mark.parametrize("path", [README, CONTRIBUTING, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_block_hides_from_the_tests(path):
    """Another name for Python would, and so would an indented fence; a page of docs has none that is left out."""
    languages = {block.language for block in blocks(path)}
    assert languages <= (LANGUAGES if path == README else LANGUAGES - {"python notest"})
    assert path.read_text(encoding="utf-8").count("```") == 2 * len(blocks(path))

"""What is in the wheel and in the sdist."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
_NEVER = re.compile(
    r"__pycache__|\.pyc$|\.(venv|git|ruff_cache|hypothesis|coverage)\b|ipynb_checkpoints|\.whl$|\.egg-info|(^|/)build/"
)


_OTHERS = ("training/", "tests/backends/local/checkpoints/layers/")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    """The wheel's files, by name."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


@pytest.fixture(scope="module")
def sdist(built):
    """The sdist's files, by name without the first folder."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = [member for member in archive if member.isfile()]
        return {member.name.partition("/")[2]: archive.extractfile(member).read() for member in files}


def tracked(folder):
    done = subprocess.run(
        ["git", "ls-files", "-z", folder],  # noqa: S607 - wherever it is
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return {name for name in done.stdout.decode().split("\0") if name}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    package = {f"src/{name}" for name in wheel if name.startswith("llama_vision/")}
    assert package == tracked("src")
    others = {name.split("/")[0] for name in wheel if not name.startswith("llama_vision/")}
    assert len(others) == 1
    assert others.pop().endswith(".dist-info")
    assert "llama_vision/py.typed" in wheel


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_no_caches_and_the_weights_once(kind, request):
    files = request.getfixturevalue(kind)
    assert [name for name in files if _NEVER.search(name)] == []
    weights = [name for name in files if name.endswith(".safetensors")]
    # The sdist also has those that training begins with, of another model, and single layers for tests.
    assert weights == [name for name in weights if "backends/local/tiny/" in name or name.startswith(_OTHERS)]
    assert sum("backends/local/tiny/" in name for name in weights) == 1
    assert len({files[name] for name in weights}) == len(weights)
    assert sum(map(len, files.values())) < 30_000_000


def test_the_licenses_are_in_both(wheel, sdist):
    text = (ROOT / "LICENSE").read_bytes()
    assert sdist["LICENSE"] == text
    assert [content for name, content in wheel.items() if name.endswith(".dist-info/licenses/LICENSE")] == [
        text
    ]
    (metadata,) = (content for name, content in wheel.items() if name.endswith(".dist-info/METADATA"))
    fields = message_from_bytes(metadata)
    assert (fields["License-Expression"], fields["License-File"]) == ("Apache-2.0", "LICENSE")
    assert fields["Requires-Python"] == ">=3.11"


def test_the_readme_of_an_index_page_has_no_link_into_the_source_tree(wheel):
    (metadata,) = (content for name, content in wheel.items() if name.endswith(".dist-info/METADATA"))
    message = message_from_bytes(metadata)
    assert message["Description-Content-Type"] == "text/markdown"
    readme = message.get_payload(decode=True).decode()
    links = re.findall(r"\]\(([^)]*)\)", readme)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "Images and documents in RAG (`docs/rag.md`)" in readme
    blocks = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    assert blocks.findall(readme) == blocks.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_sdist_holds_what_tests_and_documentation_need(sdist):
    for folder in ("src", "tests", "docs", "cassettes", "notebooks", "training", "benchmarks"):
        assert tracked(folder) <= set(sdist), folder
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", "mkdocs.yml"} <= set(sdist)

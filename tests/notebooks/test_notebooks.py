"""The notebooks run from top to bottom without an error or a warning, and what is kept of them is fit to be read."""

import json
import re

import nbformat
import pytest

from tests.notebooks.running import FOLDER, NOTEBOOKS, executed

NAMES = [
    "01_quickstart",
    "02_langchain",
    "03_llamaindex_multimodal_rag",
    "04_local_gpu",
    "05_providers",
    "06_documents",
]
MOST_BYTES = 300_000
BASE64 = re.compile(r"[A-Za-z0-9+/]{120,}")
SHOWN_IMAGE = re.compile(r'src="data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=]+"')
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def texts_of(notebook):
    """All that is read as text: what is printed, the texts of results, and HTML but for the images in it."""
    for output in outputs_of(notebook):
        if output.output_type == "stream":
            yield output.text
        for kind, content in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield SHOWN_IMAGE.sub("", content)


def test_they_are_all_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem == "05_providers" else pytest.mark.slow, id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_it_runs_without_an_error_or_a_warning(path, tmp_path):
    notebook = executed(nbformat.read(path, as_version=4), tmp_path)
    assert [output for output in outputs_of(notebook) if output.output_type == "error"] == []
    assert [output.text for output in outputs_of(notebook) if output.get("name") == "stderr"] == []
    assert not list(tmp_path.iterdir()), "it leaves files behind"


@each_notebook
def test_it_says_what_one_needs_and_will_see(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert "**You need**" in first.source
    assert "**You will see**" in first.source


@each_notebook
def test_its_outputs_are_kept_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "`make notebooks` runs it from top to bottom"
    assert path.stat().st_size < MOST_BYTES
    assert [output.get("name", "") for output in outputs_of(notebook) if output.output_type == "error"] == []
    assert not any(output.get("name") == "stderr" for output in outputs_of(notebook))


@each_notebook
def test_it_shows_images_and_prints_no_base64(path):
    notebook = nbformat.read(path, as_version=4)
    html = [output.data.get("text/html", "") for output in outputs_of(notebook) if "data" in output]
    assert any(SHOWN_IMAGE.search(text) for text in html)
    assert [text[:200] for text in texts_of(notebook) if BASE64.search(text)] == []
    assert not any(BASE64.search(cell.source) for cell in notebook.cells)


@each_notebook
def test_it_says_nothing_of_the_machine_it_was_run_on(path):
    text = path.read_text()
    assert str(FOLDER.parent) not in text
    assert json.loads(text)["metadata"]["language_info"] == {"name": "python"}
    assert not re.search(r"/(home|root|Users|tmp)/", text)

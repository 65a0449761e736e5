"""README and docs tell the truth: tables are made from the records, diagrams are drawn. Their code is run by tests/docs."""

import importlib.util
import re
from pathlib import Path

import pytest

from llama_vision.cli.providers import markdown_table
from llama_vision.providers import PROVIDERS
from tests.docs import tables
from tests.docs.tables import PROVIDERS_PAGE, README, between_marks, short_table

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def load_hook():
    spec = importlib.util.spec_from_file_location("mermaid_hook", DOCS / "mermaid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = load_hook()
DIAGRAMS = {path: source for path in DOCS.rglob("*.md") if (source := HOOK.source_of(path)) is not None}


def test_the_table_of_providers_is_that_of_the_records():
    table = between_marks(PROVIDERS_PAGE.read_text(encoding="utf-8"), "providers")
    assert table[1] == markdown_table(), "run `make tables`"


def test_the_short_table_names_every_provider_once():
    table = between_marks(README.read_text(encoding="utf-8"), "short table")
    assert table[1] == short_table(), "run `make tables`"
    names = re.findall(r"`([^`=\s]+)`", table[1])
    assert sorted(names) == sorted(PROVIDERS)


def test_one_command_writes_the_tables_anew(tmp_path, monkeypatch):
    for name, path in (("README", README), ("PROVIDERS_PAGE", PROVIDERS_PAGE)):
        copy = tmp_path / path.name
        copy.write_text(path.read_text(encoding="utf-8").replace("`deepinfra`", "`gone`"), encoding="utf-8")
        monkeypatch.setattr(tables, name, copy)
    monkeypatch.setattr("sys.argv", ["tables"])
    tables.main()
    assert (tmp_path / README.name).read_text(encoding="utf-8") == README.read_text(encoding="utf-8")
    assert (
        between_marks((tmp_path / PROVIDERS_PAGE.name).read_text(encoding="utf-8"), "providers")[1]
        == markdown_table()
    )


def test_diagrams_are_found():
    assert DOCS / "engine.md" in DIAGRAMS


@pytest.mark.parametrize("page", DIAGRAMS, ids=lambda page: page.name)
def test_a_drawing_is_that_of_its_diagram(page):
    drawing = page.with_suffix(".svg").read_text(encoding="utf-8")
    assert HOOK.description(DIAGRAMS[page]) in drawing, "draw it anew: python docs/mermaid.py"
    assert not re.search(r"(href|src)=.http", drawing), "it fetches something from another host"


def test_the_engine_page_names_modules_that_are_there():
    modules = re.findall(r"`(\w+\.py)`", (DOCS / "engine.md").read_text(encoding="utf-8"))
    assert len(modules) > 10
    assert {
        name for name in modules if not (ROOT / "src/llama_vision/backends/local" / name).is_file()
    } == set()

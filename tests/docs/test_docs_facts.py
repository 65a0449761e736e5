"""Tables of docs that say what the code says."""

import re
from dataclasses import fields

import pytest

from llama_vision.backends.local import LocalSettings
from llama_vision.core import errors
from llama_vision.langchain.errors import to_langchain_error
from tests.docs.markdown import ROOT

DOCS = ROOT / "docs"
ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.LlamaVisionError)
}


def rows(page, columns):
    """Give the cells of a page's tables that have so many columns."""
    lines = re.findall(r"^\| (.*) \|$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    return [row for row in cells if len(row) == columns and row[0].startswith("`")]


def test_every_error_is_explained():
    assert [row[0].strip("`") for row in rows("errors.md", 4)] == list(ERRORS)


@pytest.mark.parametrize("row", rows("errors.md", 4), ids=lambda row: row[0].strip("`"))
def test_what_an_error_is_in_langchain(row):
    kinds = {kind.__name__ for kind in type(to_langchain_error(ERRORS[row[0].strip("`")]("..."))).__mro__}
    assert row[3].strip("`") in kinds
    assert row[3].strip("`") not in {"Exception", "LlamaVisionError"}


def test_every_local_setting_is_explained():
    shown = {row[0].strip("`"): row[1] for row in rows("local.md", 3)}
    assert set(shown) == {field.name for field in fields(LocalSettings)}
    for field in fields(LocalSettings):
        if isinstance(field.default, int):
            told = f"{field.default >> 20:,} MiB" if field.name.endswith("_bytes") else f"{field.default:,}"
            assert shown[field.name] == told

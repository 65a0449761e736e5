"""Links of README, docs and the other pages lead somewhere: files and headings are looked for, addresses of others only read.

`make docs` checks the links of docs once more, and those between pages and the reference.
"""

import re
from urllib.parse import urlsplit

import pytest

from tests.docs.markdown import CONTRIBUTING, PAGES, README, ROOT

ALL = [README, CONTRIBUTING, ROOT / "CHANGELOG.md", *PAGES]
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)]*)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_PAGE_OF_DOCS = ROOT / "docs"


def links(path):
    """Give where a page's links lead, but for those in code."""
    return _LINK.findall(_CODE.sub("", path.read_text(encoding="utf-8")))


def anchors(path):
    """Give the names of a page's headings, as GitHub and mkdocs make them."""
    page = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in _HEADING.findall(page)
    }


def problem(link, path):
    """Say what is wrong with a link, or nothing."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        good = parts.scheme in {"http", "https"} and "." in parts.netloc and not re.search(r"\s", link)
        return "" if good else "is no address"
    target = (path.parent / parts.path).resolve() if parts.path else path
    if not target.is_file():
        return "leads to no file"
    if _PAGE_OF_DOCS in path.parents and _PAGE_OF_DOCS not in target.parents:
        return "leads out of docs, where `make docs` doesn't follow"
    return "" if not parts.fragment or parts.fragment in anchors(target) else "leads to no heading"


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    wrong = [f"{link} {trouble}" for link in links(path) if (trouble := problem(link, path))]
    assert not wrong


@pytest.mark.parametrize(
    ("link", "trouble"),
    [
        ("docs/nowhere.md", "leads to no file"),
        ("docs/rag.md#nothing", "leads to no heading"),
        ("https://", "is no address"),
        ("htps://example.com", "is no address"),
        ("docs/rag.md#what-llamaindex-leaves-out", ""),
        ("https://example.com/a", ""),
    ],
)
def test_a_broken_link_is_noticed(link, trouble):
    assert problem(link, README) == trouble


def test_every_page_is_linked_from_readme():
    """But for what is there already, and the front page of docs."""
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(README) if link.startswith("docs/")}
    pages = {path for path in PAGES if path.parent == ROOT / "docs"}
    assert pages - linked == {ROOT / f"docs/{name}.md" for name in ("index", "contributing", "changelog")}


def test_links_are_found():
    assert len(links(README)) > 20

"""A hook of mkdocs that shows a page's Mermaid diagram as a drawn SVG: Material would fetch Mermaid from another host.

`python docs/mermaid.py` draws the diagrams anew; it needs `pip install mermaidx`. A test compares drawing and source.
"""

# ruff: noqa: INP001 - mkdocs loads it by its path

import re
from html import escape
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Put the drawing in the diagram's place.

    Args:
        markdown: The page, with one diagram at most.
        page: mkdocs' page.
        **_: What else mkdocs hands to hooks.

    Returns:
        The page with an image of the same name as its file.

    """
    return _FENCE.sub(f"![Diagram: {page.title}]({Path(page.file.src_uri).stem}.svg)", markdown)


def source_of(page: Path) -> str | None:
    """Read a page's diagram; None where it has none."""
    diagram = _FENCE.search(page.read_text(encoding="utf-8"))
    return diagram and diagram[1]


def description(source: str) -> str:
    """Write the source as the drawing holds it."""
    return f"<desc>{escape(source)}</desc>"


def _draw(page: Path, source: str) -> None:
    import mermaidx  # noqa: PLC0415 - only needed to draw

    svg = mermaidx.render(source, config={"htmlLabels": False, "flowchart": {"htmlLabels": False}}).svg()
    drawing = svg.replace("<style>", f"{description(source)}<style>", 1)
    page.with_suffix(".svg").write_text(f"{drawing}\n", encoding="utf-8")


if __name__ == "__main__":
    for _page in sorted(Path(__file__).parent.glob("*.md")):
        if (_source := source_of(_page)) is not None:
            _draw(_page, _source)

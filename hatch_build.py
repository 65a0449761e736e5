"""Hatch's hook for metadata: README as an index page shows it, where links into the source tree would lead nowhere."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\[([^][]+)\]\((?!\w+://)([^()#]+)(?:#[^()]*)?\)")


def without_relative_links(markdown: str) -> str:
    """Name the file that a link leads to: there is no public address that it could become part of.

    Args:
        markdown: A page with links such as `[RAG](docs/rag.md#text)`.

    Returns:
        The page with ``RAG (`docs/rag.md`)`` in their place, and links to other hosts as they were.
    """
    return _LINK.sub(r"\1 (`\2`)", markdown)


class ReadmeHook(MetadataHookInterface):
    """Sets `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set it.

        Args:
            metadata: The project's table of pyproject.toml.
        """
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": without_relative_links(readme)}

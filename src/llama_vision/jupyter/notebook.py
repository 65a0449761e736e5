"""Detects IPython, and displays HTML below a notebook's cell."""

import sys
from typing import Any, cast

from llama_vision.core.errors import MissingDependencyError


def is_notebook(notebook: bool | None) -> bool:
    """Return whether output may be HTML; None detects it: IPython has a kernel in a notebook, and none in a terminal."""
    return getattr(_shell(), "kernel", None) is not None if notebook is None else notebook


def execution_count() -> int | None:
    """Return the number of the running cell; None outside IPython."""
    return getattr(_shell(), "execution_count", None)


def display_html(html: str, text: str) -> None:
    """Display HTML below the cell, or the text in frontends without HTML."""
    ipython_display().display({"text/html": html, "text/plain": text}, raw=True)


def ipython_display() -> Any:
    """Import `IPython.display`; raise MissingDependencyError where IPython is not installed."""
    try:
        import IPython.display  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise MissingDependencyError(
            "IPython is not installed, which notebooks need: pip install 'llama-vision[jupyter]'. "
            "With notebook=False it is shown in plain text."
        ) from error
    return cast("Any", IPython.display)


def _shell() -> Any:
    """Return IPython's shell, without importing IPython in plain Python."""
    ipython: Any = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None

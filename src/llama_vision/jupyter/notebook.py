"""IPython: whether it is there, and what draws below its cells."""

import sys
from typing import Any, cast

from llama_vision.core.errors import MissingDependencyError


def is_notebook(notebook: bool | None) -> bool:
    """Tell whether what is shown may be HTML.

    Args:
        notebook: What the user says; None finds out.

    Returns:
        True where IPython runs as a kernel: a notebook has one, a terminal has not.

    """
    return getattr(_shell(), "kernel", None) is not None if notebook is None else notebook


def execution_count() -> int | None:
    """Tell which cell runs; None outside IPython."""
    return getattr(_shell(), "execution_count", None)


def display_html(html: str, text: str) -> None:
    """Show something once below the cell.

    Args:
        html: As a notebook shows it.
        text: The same for what shows no HTML.

    Raises:
        MissingDependencyError: IPython is not installed.

    """
    ipython_display().display({"text/html": html, "text/plain": text}, raw=True)


def ipython_display() -> Any:
    """Load what draws below a cell.

    Returns:
        `IPython.display`.

    Raises:
        MissingDependencyError: IPython is not installed.

    """
    try:
        import IPython.display  # noqa: PLC0415 - notebooks have it, and others do without
    except ImportError as error:
        raise MissingDependencyError(
            "IPython is not installed, which notebooks need: pip install 'llama-vision[jupyter]'. "
            "With notebook=False it is shown in plain text."
        ) from error
    return cast("Any", IPython.display)


def _shell() -> Any:
    """Find IPython's shell, where IPython was loaded by someone: we are asked in plain Python too."""
    ipython: Any = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None

"""Where answers are shown: below a notebook's cell, or on a terminal."""

import time
from typing import Any, Protocol

from llama_vision.core.formatting import html_text, sanitize
from llama_vision.jupyter.displayed_reply import DisplayedReply
from llama_vision.jupyter.notebook import ipython_display, is_notebook

_REDRAW_S = 0.05
"""Each drawing sends the whole text, and nobody reads twenty images a second."""


class Renderer(Protocol):
    """Shows one answer as it grows."""

    def update(self, shown: DisplayedReply) -> None:
        """Show all that has come so far."""
        ...

    def finish(self, shown: DisplayedReply) -> None:
        """Show the whole, and what it took."""
        ...


class NotebookRenderer:
    """Draws over itself below the cell. It needs no widgets, and what is kept with the notebook is the last drawing."""

    def __init__(self) -> None:
        """Prepare.

        Raises:
            MissingDependencyError: IPython is not installed.

        """
        self._ipython = ipython_display()
        self._handle: Any = None
        self._drawn_at = 0.0

    def update(self, shown: DisplayedReply) -> None:
        """Show all that has come so far, unless it was done a moment ago."""
        if time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw(html_text(shown.full_text), sanitize(shown.full_text))
            self._drawn_at = time.monotonic()

    def finish(self, shown: DisplayedReply) -> None:
        """Show the whole, and what it took."""
        self._draw(shown._repr_html_(), str(shown))  # pyright: ignore[reportPrivateUsage] - IPython's name for it

    def _draw(self, html: str, text: str) -> None:
        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = self._ipython.display(content, raw=True, display_id=True)
        else:  # in place: clearing the output would make the page jump
            self._handle.update(content, raw=True)


class TerminalRenderer:
    """Prints words as they come, and calls of tools once they are whole."""

    def __init__(self) -> None:
        """Prepare."""
        self._printed = ""

    def update(self, shown: DisplayedReply) -> None:
        """Print the words that are new."""
        self._print(shown.previous_turns + shown.reply.text)

    def finish(self, shown: DisplayedReply) -> None:
        """Print the rest, and what it took."""
        self._print(shown.full_text)
        print("\n" * bool(shown.full_text) + f"[{shown.summary}]", flush=True)

    def _print(self, words: str) -> None:
        known = self._printed if words.startswith(self._printed) else ""
        if known != self._printed:  # something was taken back, and paper can't be
            print()
        new = words[len(known) :]
        print(sanitize(new, len(new)), end="", flush=True)
        self._printed = words


def create_renderer(notebook: bool | None) -> Renderer:
    """Choose where to show something.

    Args:
        notebook: Whether this is a notebook; None finds out.

    Returns:
        The screen.

    Raises:
        MissingDependencyError: A notebook is wanted, and IPython is not installed.

    """
    return NotebookRenderer() if is_notebook(notebook) else TerminalRenderer()

"""Where answers are shown: below a notebook's cell, or on a terminal."""

import time
from typing import Any, Protocol

from llama_vision.core.markup import paragraph, plain
from llama_vision.jupyter.notebook import ipython_display, wants_html
from llama_vision.jupyter.shown import Shown

_REDRAW_S = 0.05
"""Each drawing sends the whole text, and nobody reads twenty pictures a second."""


class Screen(Protocol):
    """Shows one answer as it grows."""

    def grow(self, shown: Shown) -> None:
        """Show all that has come so far."""
        ...

    def finish(self, shown: Shown) -> None:
        """Show the whole, and what it took."""
        ...


class NotebookScreen:
    """Draws over itself below the cell. It needs no widgets, and what is kept with the notebook is the last drawing."""

    def __init__(self) -> None:
        """Prepare.

        Raises:
            MissingDependencyError: IPython is not installed.

        """
        self._ipython = ipython_display()
        self._handle: Any = None
        self._drawn_at = 0.0

    def grow(self, shown: Shown) -> None:
        """Show all that has come so far, unless it was done a moment ago."""
        if time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw(paragraph(shown.words), plain(shown.words))
            self._drawn_at = time.monotonic()

    def finish(self, shown: Shown) -> None:
        """Show the whole, and what it took."""
        self._draw(shown._repr_html_(), str(shown))  # pyright: ignore[reportPrivateUsage] - IPython's name for it

    def _draw(self, html: str, text: str) -> None:
        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = self._ipython.display(content, raw=True, display_id=True)
        else:  # in place: clearing the output would make the page jump
            self._handle.update(content, raw=True)


class TerminalScreen:
    """Prints words as they come, and calls of tools once they are whole."""

    def __init__(self) -> None:
        """Prepare."""
        self._printed = ""

    def grow(self, shown: Shown) -> None:
        """Print the words that are new."""
        self._print(shown.earlier + shown.reply.text)

    def finish(self, shown: Shown) -> None:
        """Print the rest, and what it took."""
        self._print(shown.words)
        print("\n" * bool(shown.words) + f"[{shown.facts}]", flush=True)

    def _print(self, words: str) -> None:
        known = self._printed if words.startswith(self._printed) else ""
        if known != self._printed:  # something was taken back, and paper can't be
            print()
        new = words[len(known) :]
        print(plain(new, len(new)), end="", flush=True)
        self._printed = words


def screen(notebook: bool | None) -> Screen:
    """Choose where to show something.

    Args:
        notebook: Whether this is a notebook; None finds out.

    Returns:
        The screen.

    Raises:
        MissingDependencyError: A notebook is wanted, and IPython is not installed.

    """
    return NotebookScreen() if wants_html(notebook) else TerminalScreen()

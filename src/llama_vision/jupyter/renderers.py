"""Renderers of a growing reply: below a notebook's cell, or on a terminal."""

import time
from typing import Any, Protocol

from llama_vision.core.formatting import html_text, sanitize
from llama_vision.jupyter.displayed_reply import DisplayedReply
from llama_vision.jupyter.notebook import ipython_display, is_notebook

_REDRAW_S = 0.05
"""Each update sends the whole text; more than 20 a second are of no use."""


class Renderer(Protocol):
    """Displays one reply as it grows."""

    def update(self, displayed: DisplayedReply) -> None:
        """Display the reply so far."""
        ...

    def finish(self, displayed: DisplayedReply) -> None:
        """Display the whole reply and its summary."""
        ...


class NotebookRenderer:
    """Updates one display below the cell. It needs no widgets, and the notebook keeps the last update."""

    def __init__(self) -> None:
        self._ipython = ipython_display()
        self._handle: Any = None
        self._drawn_at = 0.0

    def update(self, displayed: DisplayedReply) -> None:
        """Display the reply so far, at most 20 times a second."""
        if time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw(html_text(displayed.full_text), sanitize(displayed.full_text))
            self._drawn_at = time.monotonic()

    def finish(self, displayed: DisplayedReply) -> None:
        """Display the whole reply and its summary."""
        self._draw(displayed._repr_html_(), str(displayed))  # pyright: ignore[reportPrivateUsage] - IPython's name for it

    def _draw(self, html: str, text: str) -> None:
        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = self._ipython.display(content, raw=True, display_id=True)
        else:  # in place: clearing the output would make the page jump
            self._handle.update(content, raw=True)


class TerminalRenderer:
    """Prints text as it comes, and tool calls once they are complete."""

    def __init__(self) -> None:
        self._printed = ""

    def update(self, displayed: DisplayedReply) -> None:
        """Print the new text."""
        self._print(displayed.previous_turns + displayed.reply.text)

    def finish(self, displayed: DisplayedReply) -> None:
        """Print the rest and the summary."""
        self._print(displayed.full_text)
        print("\n" * bool(displayed.full_text) + f"[{displayed.summary}]", flush=True)

    def _print(self, text: str) -> None:
        prefix = self._printed if text.startswith(self._printed) else ""
        if prefix != self._printed:  # text was retracted: a terminal can only start again on a new line
            print()
        new = text[len(prefix) :]
        print(sanitize(new, len(new)), end="", flush=True)
        self._printed = text


def create_renderer(notebook: bool | None) -> Renderer:
    """Make a renderer for one reply; `notebook=None` detects a notebook."""
    return NotebookRenderer() if is_notebook(notebook) else TerminalRenderer()

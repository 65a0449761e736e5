"""Providers and answers in tables."""

import os
from collections.abc import Mapping, Sequence

from llama_vision.core.formatting import format_cost, html_table, sanitize
from llama_vision.jupyter.displayed_reply import DisplayedReply
from llama_vision.jupyter.notebook import display_html, is_notebook
from llama_vision.providers import PROVIDERS, Provider

_MOST_CELL = 60  # characters, in plain text
_NUMBERS = ("tokens in", "tokens out", "seconds", "first words", "cost")


class Table:
    """A table that a notebook shows as one, and a terminal in columns.

    Attributes:
        headings: Of the columns.
        rows: Of texts.

    """

    def __init__(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()
    ) -> None:
        """Take what is in it.

        Args:
            headings: Of the columns.
            rows: Of texts, as many as there are headings. They are never taken for HTML.
            numbers: The headings of columns of numbers, which stand at the right.

        """
        self.headings = list(headings)
        self.rows = [list(row) for row in rows]
        self._numbers = numbers

    def _repr_html_(self) -> str:
        return html_table(self.headings, self.rows, self._numbers)

    def __repr__(self) -> str:
        """Set it in columns, long cells cut."""
        lines = [[_cell(text) for text in row] for row in [self.headings, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = [heading in self._numbers for heading in self.headings]
        return "\n".join("  ".join(map(_padded, line, widths, right)).rstrip() for line in lines)

    def show(self, *, notebook: bool | None = None) -> None:
        """Show it now.

        Args:
            notebook: Whether this is a notebook. By default it is found out.

        Raises:
            MissingDependencyError: `notebook` is True, and IPython is not installed.

        """
        if is_notebook(notebook):
            display_html(self._repr_html_(), repr(self))
        else:
            print(self)


def show_providers(*, notebook: bool | None = None) -> None:
    """Show who can be asked, and for whom a key is in the environment. No key is shown, nor any part of one.

    Args:
        notebook: Whether this is a notebook. By default it is found out.

    Raises:
        MissingDependencyError: `notebook` is True, and IPython is not installed.

    """
    rows = [
        [
            provider.name,
            provider.title,
            ", ".join(model.name for model in provider.models),
            _key_state(provider),
        ]
        for provider in PROVIDERS.values()
    ]
    Table(["provider", "who", "models", "key"], rows).show(notebook=notebook)


def show_answers(answers: Mapping[str, DisplayedReply | Exception], *, notebook: bool | None = None) -> None:
    """Show several answers below each other, with what each took.

    Args:
        answers: What `show` returned, or the error in its place, by who answered.
        notebook: Whether this is a notebook. By default it is found out.

    Raises:
        MissingDependencyError: `notebook` is True, and IPython is not installed.

    """
    rows = [[name, *_answer_cells(answer)] for name, answer in answers.items()]
    Table(["who", "answer", *_NUMBERS], rows, _NUMBERS).show(notebook=notebook)


def _answer_cells(answer: DisplayedReply | Exception) -> list[str]:
    if isinstance(answer, Exception):
        return [f"{type(answer).__name__}: {answer}", *[""] * len(_NUMBERS)]
    usage = answer.reply.usage
    numbers = [
        *["" if count is None else f"{count:,}" for count in (usage.input_tokens, usage.output_tokens)],
        *["" if time is None else f"{time:.2f}" for time in (answer.seconds, answer.time_to_first_token)],
    ]
    return [answer.full_text, *numbers, format_cost(usage)]


def _key_state(provider: Provider) -> str:
    if not provider.key_env:
        return "none needed"
    found = [name for name in provider.key_env if os.environ.get(name, "").strip()]
    if found:
        return f"found in {found[0]}"
    wanted = "" if provider.key_required else ", if it wants one"
    return f"none in {', '.join(provider.key_env)}{wanted}"


def _cell(text: str) -> str:
    line = " ".join(sanitize(text).split())
    return line if len(line) <= _MOST_CELL else f"{line[: _MOST_CELL - 3]}..."


def _padded(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)

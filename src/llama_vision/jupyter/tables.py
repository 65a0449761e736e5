"""Tables of providers and of replies."""

from collections.abc import Mapping, Sequence

from llama_vision.core.formatting import format_cost, html_table, sanitize
from llama_vision.jupyter.displayed_reply import DisplayedReply
from llama_vision.jupyter.notebook import display_html, is_notebook
from llama_vision.providers import PROVIDERS
from llama_vision.providers.credentials import describe_key

_MAX_CELL = 60  # characters, in plain text
_NUMBERS = ("tokens in", "tokens out", "seconds", "first token", "cost")


class Table:
    """A table: HTML in a notebook, aligned columns in a terminal.

    Attributes:
        headings: One for each column.
        rows: Lists of cells.
    """

    def __init__(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()
    ) -> None:
        """Make a table, with the columns under these headings, `numbers`, right-aligned. Cells are escaped."""
        self.headings = list(headings)
        self.rows = [list(row) for row in rows]
        self._numbers = numbers

    def _repr_html_(self) -> str:
        return html_table(self.headings, self.rows, self._numbers)

    def __repr__(self) -> str:
        """Format as aligned columns, long cells truncated."""
        lines = [[_cell(text) for text in row] for row in [self.headings, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = [">" if heading in self._numbers else "<" for heading in self.headings]
        return "\n".join(
            "  ".join(
                f"{text:{side}{width}}" for text, side, width in zip(line, sides, widths, strict=True)
            ).rstrip()
            for line in lines
        )

    def show(self, *, notebook: bool | None = None) -> None:
        """Display the table.

        Args:
            notebook: Whether this is a notebook; None detects it.

        Raises:
            MissingDependencyError: `notebook` is True, and IPython is not installed.
        """
        if is_notebook(notebook):
            display_html(self._repr_html_(), repr(self))
        else:
            print(self)


def show_providers(*, notebook: bool | None = None) -> None:
    """Display all providers, their models, which may no longer answer, and whether a key is in the environment.

    No part of a key is displayed.

    Args:
        notebook: Whether this is a notebook; None detects it.

    Raises:
        MissingDependencyError: `notebook` is True, and IPython is not installed.
    """
    rows = [
        [
            provider.name,
            provider.title,
            ", ".join(info.name for info in provider.models),
            ", ".join(info.name for info in provider.models if info.deprecation),
            describe_key(provider),
        ]
        for provider in PROVIDERS.values()
    ]
    Table(["provider", "who", "models", "may no longer answer", "key"], rows).show(notebook=notebook)


def show_answers(answers: Mapping[str, DisplayedReply | Exception], *, notebook: bool | None = None) -> None:
    """Display several replies below each other, with tokens, seconds and cost.

    Args:
        answers: What `show` returned, or an error in its place, by a name such as the provider's.
        notebook: Whether this is a notebook; None detects it.

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


def _cell(text: str) -> str:
    line = " ".join(sanitize(text).split())
    return line if len(line) <= _MAX_CELL else f"{line[: _MAX_CELL - 3]}..."

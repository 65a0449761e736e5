"""`Shown`: an answer with what it took, as it stands below a cell."""

from dataclasses import dataclass, field

from llama_vision.core.markup import note, paragraph, plain, reply_words, usage_words
from llama_vision.core.reply import Reply
from llama_vision.jupyter.notebook import cell_number, display_html


@dataclass(frozen=True, slots=True, repr=False)
class Shown:
    """An answer that was shown.

    Attributes:
        reply: What the model said, whole or as far as it came. Of an agent's turns it is the last, with the usage of all.
        seconds: From `show` to the last piece; None for an answer that was whole already.
        first_seconds: From `show` to the first words or tool call; None as above, or where none came.
        broken_off: The name of the error that ended it, or empty.
        earlier: What an agent said and asked for in its turns before, each ending its line.

    """

    reply: Reply
    seconds: float | None = None
    first_seconds: float | None = None
    broken_off: str = ""
    earlier: str = ""
    _cell: int | None = field(default_factory=cell_number, compare=False)

    @property
    def text(self) -> str:
        """The model's words; an agent's last ones."""
        return self.reply.text

    @property
    def words(self) -> str:
        """All that was said, with a line for each tool that was asked for."""
        return self.earlier + reply_words(self.reply.text, self.reply.tool_calls)

    @property
    def facts(self) -> str:
        """Tokens, cost and seconds in a line."""
        facts = [usage_words(self.reply.usage)]
        if self.seconds is not None:
            facts.append(f"{self.seconds:.2f} s")
        if self.first_seconds is not None:
            facts[-1] += f" (first words after {self.first_seconds:.2f} s)"
        if self.broken_off:
            facts.append(f"broken off by {self.broken_off}")
        return ", ".join(facts)

    def _repr_html_(self) -> str:
        return paragraph(self.words) + note(self.facts)

    def __str__(self) -> str:
        """Say both in plain text."""
        return f"{plain(self.words)}\n[{self.facts}]"

    def __repr__(self) -> str:
        return f"<Shown: {len(self.text):,} characters, {self.facts}>"

    def _ipython_display_(self) -> None:
        """Show it, but for the cell that has shown it already: as a cell's last value it would stand there twice."""
        if self._cell is None or self._cell != cell_number():
            display_html(self._repr_html_(), str(self))

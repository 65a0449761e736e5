"""`DisplayedReply`: an answer with what it took, as it stands below a cell."""

from dataclasses import dataclass, field

from llama_vision.core.formatting import format_reply, format_usage, html_note, html_text, sanitize
from llama_vision.core.reply import Reply
from llama_vision.jupyter.notebook import display_html, execution_count


@dataclass(frozen=True, slots=True, repr=False)
class DisplayedReply:
    """An answer that was shown.

    Attributes:
        reply: What the model said, whole or as far as it came. Of an agent's turns it is the last, with the usage of all.
        seconds: From `show` to the last piece; None for an answer that was whole already.
        time_to_first_token: From `show` to the first words or tool call; None as above, or where none came.
        error_name: The name of the error that ended it, or empty.
        previous_turns: What an agent said and asked for in its turns before, each ending its line.

    """

    reply: Reply
    seconds: float | None = None
    time_to_first_token: float | None = None
    error_name: str = ""
    previous_turns: str = ""
    _cell: int | None = field(default_factory=execution_count, compare=False)

    @property
    def text(self) -> str:
        """The model's words; an agent's last ones."""
        return self.reply.text

    @property
    def full_text(self) -> str:
        """All that was said, with a line for each tool that was asked for."""
        return self.previous_turns + format_reply(self.reply.text, self.reply.tool_calls)

    @property
    def summary(self) -> str:
        """Tokens, cost and seconds in a line."""
        facts = [format_usage(self.reply.usage)]
        if self.seconds is not None:
            facts.append(f"{self.seconds:.2f} s")
        if self.time_to_first_token is not None:
            facts[-1] += f" (first words after {self.time_to_first_token:.2f} s)"
        if self.error_name:
            facts.append(f"broken off by {self.error_name}")
        return ", ".join(facts)

    def _repr_html_(self) -> str:
        return html_text(self.full_text) + html_note(self.summary)

    def __str__(self) -> str:
        """Say both in plain text."""
        return f"{sanitize(self.full_text)}\n[{self.summary}]"

    def __repr__(self) -> str:
        return f"<Shown: {len(self.text):,} characters, {self.summary}>"

    def _ipython_display_(self) -> None:
        """Show it, but for the cell that has shown it already: as a cell's last value it would stand there twice."""
        if self._cell is None or self._cell != execution_count():
            display_html(self._repr_html_(), str(self))

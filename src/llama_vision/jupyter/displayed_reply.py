"""`DisplayedReply`: a reply with its timing, as displayed below a cell."""

from dataclasses import dataclass, field

from llama_vision.core.formatting import (
    format_reply,
    format_usage,
    html_figures,
    html_note,
    html_text,
    sanitize,
)
from llama_vision.core.reply import Reply
from llama_vision.jupyter.notebook import display_html, execution_count
from llama_vision.jupyter.sources import Source

_SOURCE_WIDTH = 160  # CSS pixels


@dataclass(frozen=True, slots=True, repr=False)
class DisplayedReply:
    """A reply that was displayed.

    Attributes:
        reply: The reply, complete or partial. Of an agent's turns it is the last, with the usage of all.
        seconds: From `show` to the last chunk; None for a reply that was complete already.
        time_to_first_token: Seconds from `show` to the first text or tool call; None as above, or where none came.
        error_name: Class name of the error that ended the stream, or empty.
        previous_turns: Text and tool calls of an agent's earlier turns, each ending its line.
        sources: Of an engine's or a chain's answer, the pages and images it was found in.
    """

    reply: Reply
    seconds: float | None = None
    time_to_first_token: float | None = None
    error_name: str = ""
    previous_turns: str = ""
    sources: tuple[Source, ...] = ()
    _cell: int | None = field(default_factory=execution_count, compare=False)

    @property
    def text(self) -> str:
        """The reply's text; of an agent, its last turn's."""
        return self.reply.text

    @property
    def full_text(self) -> str:
        """Text of all turns, with a line for each tool call."""
        return self.previous_turns + format_reply(self.reply.text, self.reply.tool_calls)

    @property
    def summary(self) -> str:
        """Tokens, cost and seconds on one line."""
        facts = [format_usage(self.reply.usage)]
        if self.seconds is not None:
            facts.append(f"{self.seconds:.2f} s")
        if self.time_to_first_token is not None:
            facts[-1] += f" (first token after {self.time_to_first_token:.2f} s)"
        if self.error_name:
            facts.append(f"broken off by {self.error_name}")
        return ", ".join(facts)

    @property
    def notes(self) -> str:
        """The summary in brackets and, where there are sources, a line of their citations."""
        citations = "; ".join(source.citation for source in self.sources)
        return f"[{self.summary}]" + (f"\nSources: {sanitize(citations)}" if citations else "")

    def _repr_html_(self) -> str:
        return html_text(self.full_text) + html_note(self.summary) + self._sources_html()

    def _sources_html(self) -> str:
        if not self.sources:
            return ""
        figures = [(source.thumbnail, source.citation) for source in self.sources]
        return html_figures(figures, width=_SOURCE_WIDTH)

    def __str__(self) -> str:
        """Format text and summary as plain text."""
        return f"{sanitize(self.full_text)}\n{self.notes}"

    def __repr__(self) -> str:
        return f"<DisplayedReply: {len(self.text):,} characters, {self.summary}>"

    def _ipython_display_(self) -> None:
        """Display it, unless this cell has already: as the cell's last value it would appear twice."""
        if self._cell is None or self._cell != execution_count():
            display_html(self._repr_html_(), str(self))

"""Words as a notebook or a terminal may show them: nothing in them is taken for markup or control, and they have an end."""

from collections.abc import Sequence

from llama_vision.core.messages import ToolCall
from llama_vision.core.usage import Usage

MAX_CHARACTERS = 20_000
"""What is shown of a text. The longest reply at the usual max_tokens, 1024, has a quarter of it."""

_MOST_ARGUMENTS = 500  # characters shown of a tool call
_CONTROLS = {code: f"\\x{code:02x}" for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"}
"""Of a terminal, such as those that recolour it or write over other lines."""

_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
_PRE = "margin: 0; padding: 2px 5px; white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; font-family: inherit; font-size: inherit"
_NOTE = "padding: 0 5px; opacity: 0.7; font-size: 85%"  # opacity suits light and dark themes
_CELL = "text-align: {align}; vertical-align: top; white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere"


def sanitize(text: str, most: int = MAX_CHARACTERS) -> str:
    r"""Make a text fit for a terminal.

    Args:
        text: Anyone's.
        most: How many characters are shown.

    Returns:
        The text, with its control characters spelt out (`\x1b`), and where it is too long its beginning.

    """
    kept = text[:most].translate(_CONTROLS)
    return kept if len(text) <= most else f"{kept}... ({len(text) - most:,} characters more)"


def escape_html(text: str, most: int = MAX_CHARACTERS) -> str:
    """Make a text fit for HTML.

    Args:
        text: Anyone's.
        most: How many characters are shown.

    Returns:
        As `sanitize`, with nothing left that HTML takes for markup.

    """
    return sanitize(text, most).translate(_MARKUP)


def html_text(text: str) -> str:
    """Set a text as it was written, with its line breaks.

    Args:
        text: Anyone's.

    Returns:
        HTML, in which notebooks look for no formulas: a dollar stays one.

    """
    return f'<pre style="{_PRE}">{escape_html(text)}</pre>'


def html_note(text: str) -> str:
    """Set a remark below something.

    Args:
        text: Anyone's.

    Returns:
        HTML.

    """
    return f'<div class="mathjax_ignore" style="{_NOTE}">{escape_html(text)}</div>'


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """Set a table.

    Args:
        headings: Of the columns; none for a table without a head.
        rows: Of cells, as many as there are columns.
        numbers: The headings of columns of numbers, which stand at the right.

    Returns:
        HTML that scrolls where it is too wide.

    """
    sides = ["right" if heading in numbers else "left" for heading in headings]
    head = f"<thead><tr>{_cells('th', headings, sides)}</tr></thead>" if headings else ""
    body = "".join(f"<tr>{_cells('td', row, sides or ['left'] * len(row))}</tr>" for row in rows)
    return f'<div class="mathjax_ignore" style="overflow-x: auto"><table>{head}<tbody>{body}</tbody></table></div>'


def _cells(tag: str, texts: Sequence[str], sides: Sequence[str]) -> str:
    return "".join(
        f'<{tag} style="{_CELL.format(align=side)}">{escape_html(text)}</{tag}>'
        for text, side in zip(texts, sides, strict=True)
    )


def format_reply(text: str, tool_calls: Sequence[ToolCall]) -> str:
    """Say in one text what a model said.

    Args:
        text: Its words.
        tool_calls: What it asks for.

    Returns:
        The words, and a line for each call.

    """
    return "\n".join([*filter(None, [text]), *format_tool_calls(tool_calls)])


def format_tool_calls(tool_calls: Sequence[ToolCall]) -> list[str]:
    """Say which tools a model asks for.

    Args:
        tool_calls: The last may be unfinished.

    Returns:
        A line for each.

    """
    return [f"-> {sanitize(call.name)}({sanitize(call.arguments, _MOST_ARGUMENTS)})" for call in tool_calls]


def format_usage(usage: Usage) -> str:
    """Say what a reply consumed.

    Args:
        usage: Of which anything may be unknown.

    Returns:
        Such as `12 tokens in, 5 out, about 0.000120 USD`; what nobody told is said to be untold.

    """
    counts = ["?" if count is None else f"{count:,}" for count in (usage.input_tokens, usage.output_tokens)]
    tokens = "tokens not told" if counts == ["?", "?"] else f"{counts[0]} tokens in, {counts[1]} out"
    return f"{tokens}, {format_cost(usage)}"


def format_cost(usage: Usage, *, dollar_sign: bool = False, decimals: int = 6) -> str:
    """Format a cost.

    Args:
        usage: Its cost may be unknown.
        dollar_sign: Whether to write it as the command line does.
        decimals: Digits after the point.

    Returns:
        Such as `about 0.000120 USD` or `$0.000120 (estimated)`, without "about" and "(estimated)" if the provider told
        the cost, or `cost not told`.

    """
    if usage.cost_usd is None:
        return "cost not told"
    amount = f"{usage.cost_usd:.{decimals}f}"
    if dollar_sign:
        return f"${amount}{' (estimated)' if usage.cost_is_estimate else ''}"
    return f"{'about ' if usage.cost_is_estimate else ''}{amount} USD"

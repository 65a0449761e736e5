"""Text made safe to display in a terminal or a notebook: escaped, without control characters, and truncated."""

from collections.abc import Sequence

from llama_vision.core.messages import ToolCall
from llama_vision.core.usage import Usage

MAX_CHARACTERS = 20_000
"""A text is truncated here. The longest reply at the default max_tokens, 1024, has a quarter of it."""

MAX_FIGURE_CAPTION = 500
"""The same of a caption below an image."""

_CAPTION = (
    "white-space: pre-wrap; overflow-wrap: anywhere; font-size: 90%; margin-top: 0.3em; line-height: 1.3"
)
_MAX_ARGUMENTS = 500  # characters displayed of a tool call
_CONTROLS = {code: f"\\x{code:02x}" for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"}
"""Control characters of a terminal, which may recolour it or write over other lines."""

_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
_PRE = "margin: 0; padding: 2px 5px; white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; font-family: inherit; font-size: inherit"
_NOTE = "padding: 0 5px; opacity: 0.7; font-size: 85%"  # opacity suits light and dark themes
_CELL = "text-align: {align}; vertical-align: top; white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere"


def sanitize(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    r"""Make a text safe for a terminal: control characters are escaped (`\x1b`), and a long text is truncated."""
    truncated = text[:max_characters].translate(_CONTROLS)
    excess = len(text) - max_characters
    return truncated if excess <= 0 else f"{truncated}... ({excess:,} characters more)"


def escape_html(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Make a text safe for HTML: as `sanitize`, with markup escaped."""
    return sanitize(text, max_characters).translate(_MARKUP)


def html_text(text: str) -> str:
    """Render a text with its line breaks, in an element where notebooks look for no formulas: a dollar stays one."""
    return f'<pre style="{_PRE}">{escape_html(text)}</pre>'


def html_note(text: str) -> str:
    """Render a remark below something."""
    return f'<div class="mathjax_ignore" style="{_NOTE}">{escape_html(text)}</div>'


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """Render a table that scrolls where it is too wide, with the columns in `numbers` aligned to the right."""
    sides = ["right" if heading in numbers else "left" for heading in headings]
    head = f"<thead><tr>{_cells('th', headings, sides)}</tr></thead>" if headings else ""
    body = "".join(f"<tr>{_cells('td', row, sides or ['left'] * len(row))}</tr>" for row in rows)
    return f'<div class="mathjax_ignore" style="overflow-x: auto"><table>{head}<tbody>{body}</tbody></table></div>'


def html_figures(
    figures: Sequence[tuple[str | None, str]], *, width: int, columns: int | None = None, more: int = 0
) -> str:
    """Render images side by side, each with its caption.

    Args:
        figures: The `src` of each, None where there is no image, and its caption.
        width: Of each, in CSS pixels.
        columns: How many in a row; None for as many as there is room for.
        more: How many further ones there are, which are only counted.

    Returns:
        HTML.
    """
    shown = "".join(_figure(source, caption, width) for source, caption in figures)
    rest = f"<div>... and {more} more</div>" if more else ""
    return (
        '<div class="mathjax_ignore" style="overflow-x: auto"><div style="display: grid; gap: 12px; '
        f'grid-template-columns: repeat({columns or "auto-fill"}, {width}px)">{shown}</div>{rest}</div>'
    )


def _figure(source: str | None, caption: str, width: int) -> str:
    text = escape_html(caption, MAX_FIGURE_CAPTION)
    image = (
        f'<img alt="{text}" width="{width}" src="{source}" style="max-width: 100%; border: 1px solid #8886">'
        if source
        else ""
    )
    return f'<figure style="margin: 0">{image}<figcaption style="{_CAPTION}">{text}</figcaption></figure>'


def _cells(tag: str, texts: Sequence[str], sides: Sequence[str]) -> str:
    return "".join(
        f'<{tag} style="{_CELL.format(align=side)}">{escape_html(text)}</{tag}>'
        for text, side in zip(texts, sides, strict=True)
    )


def format_reply(text: str, tool_calls: Sequence[ToolCall]) -> str:
    """Format a reply as its text and a line for each tool call."""
    return "\n".join([*filter(None, [text]), *format_tool_calls(tool_calls)])


def format_tool_calls(tool_calls: Sequence[ToolCall]) -> list[str]:
    """Format tool calls, of which the last may be unfinished, each as a line."""
    return [f"-> {sanitize(call.name)}({sanitize(call.arguments, _MAX_ARGUMENTS)})" for call in tool_calls]


def format_usage(usage: Usage) -> str:
    """Format usage, such as `12 tokens in, 5 out, about 0.000120 USD`, with `?` or `not told` for what is unknown."""
    counts = ["?" if count is None else f"{count:,}" for count in (usage.input_tokens, usage.output_tokens)]
    tokens = "tokens not told" if counts == ["?", "?"] else f"{counts[0]} tokens in, {counts[1]} out"
    return f"{tokens}, {format_cost(usage)}"


def format_cost(usage: Usage, *, dollar_sign: bool = False, decimals: int = 6) -> str:
    """Format the cost, such as `about 0.000120 USD`, or with a dollar sign `$0.000120 (estimated)`, or `cost not told`."""
    if usage.cost_usd is None:
        return "cost not told"
    amount = f"{usage.cost_usd:.{decimals}f}"
    if dollar_sign:
        return f"${amount}{' (estimated)' if usage.cost_is_estimate else ''}"
    return f"{'about ' if usage.cost_is_estimate else ''}{amount} USD"

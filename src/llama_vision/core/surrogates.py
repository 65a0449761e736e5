r"""Joins the halves of surrogate pairs that were cut apart, so that a text can be encoded wherever it is sent next.

A server that cuts between UTF-16 units sends `"\ud83d"` and `"\ude00"` in two chunks. A half on its own becomes U+FFFD, as in
the WHATWG's USVString: neither UTF-8 nor most JSON parsers take it.
"""

import re
from typing import Any, cast

_RAW = re.compile("(?P<open>[\ud800-\udbff]\\Z)|(?P<pair>[\ud800-\udbff][\udc00-\udfff])|[\ud800-\udfff]")
_ANY = re.compile("[\ud800-\udfff]")
_HEX = "[0-9a-fA-F]"
_HALF = rf"\\u[dD][89a-fA-F]{_HEX}{{2}}"
# In JSON text: what an escape may go on from at the end of a piece, a pair, half a pair, and any other escape.
_ESCAPED = re.compile(
    rf"(?P<open>\\(?:u(?:[dD]{_HEX}{{0,2}}|[dD][89abAB]{_HEX}{{2}}(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?)?)?\Z)"
    rf"|(?P<kept>\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}})|{_HALF}|(?P<other>\\.)",
    re.DOTALL,
)
_HALF_ESCAPED = re.compile(_HALF)


class SurrogateJoiner:
    """Joins halves across the pieces of one text."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return the next piece without halves; one at its end is held back."""
        if not self._held and (piece.isascii() or not _ANY.search(piece)):
            return piece
        text, self._held = self._held + piece, ""
        return _RAW.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        if match["open"]:
            self._held = match["open"]
            return ""
        return match[0].encode("utf-16", "surrogatepass").decode("utf-16") if match["pair"] else "\ufffd"

    def close(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return "\ufffd" if held else ""


class JsonSurrogateJoiner:
    """The same for JSON text, whose halves may be escapes too."""

    __slots__ = ("_held", "_raw")

    def __init__(self) -> None:
        self._raw = SurrogateJoiner()
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return the next piece without halves; what may be one at its end is held back."""
        piece = self._raw.feed(piece)
        if not self._held and "\\" not in piece:
            return piece
        text, self._held = self._held + piece, ""
        return _ESCAPED.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        if match["open"]:
            self._held = match["open"]
            return ""
        return match[0] if match["kept"] or match["other"] else "\\ufffd"

    def close(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return _HALF_ESCAPED.sub(r"\\ufffd", held) + self._raw.close()


def replace_surrogates(text: str) -> str:
    """Join pairs and replace lone halves in a whole text."""
    joiner = SurrogateJoiner()
    return joiner.feed(text) + joiner.close()


def replace_surrogates_in(value: Any) -> Any:
    """Do the same in all strings of a JSON value."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [replace_surrogates_in(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {replace_surrogates(name): replace_surrogates_in(item) for name, item in fields.items()}
    return value

"""Stop strings: ends a streamed text before the first of them, across chunk boundaries."""


class StopStringFilter:
    """Searches a streamed text for stop strings.

    Attributes:
        hit: Whether one was found; nothing after it is part of the text.
    """

    __slots__ = ("_held", "_strings", "hit")

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = tuple(filter(None, strings))
        self._held: str = ""
        self.hit = False

    def __bool__(self) -> bool:
        return bool(self._strings)

    def feed(self, text: str) -> str:
        """Add the next chunk and return the text that is certainly before any stop string."""
        if not self._strings or self.hit:
            return "" if self.hit else text
        text = self._held + text
        # The one that is complete first, independent of chunk boundaries.
        found = [
            (start + len(string), start) for string in self._strings if (start := text.find(string)) >= 0
        ]
        if found:
            self.hit = True
            self._held = ""
            return text[: min(found)[1]]
        keep = max(_longest_partial_match(text, string) for string in self._strings)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return the text that was held back, at the end of the input."""
        held, self._held = self._held, ""
        return held


def _longest_partial_match(text: str, string: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `string`."""
    return next(
        (size for size in range(min(len(string) - 1, len(text)), 0, -1) if text.endswith(string[:size])), 0
    )

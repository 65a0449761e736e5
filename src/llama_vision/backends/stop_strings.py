"""Ends a text at the first of some strings, however the text was cut into pieces."""


class StopStringFilter:
    """Watches a growing text.

    Attributes:
        hit: Whether one of the strings has come; nothing after it is part of the text.

    """

    __slots__ = ("_held", "_strings", "hit")

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = tuple(filter(None, strings))
        self._held: str = ""
        self.hit = False

    def __bool__(self) -> bool:
        return bool(self._strings)

    def feed(self, text: str) -> str:
        """Take in the next words and give what is certainly before any stop string."""
        if not self._strings or self.hit:
            return "" if self.hit else text
        text = self._held + text
        # The one that is complete first, which does not depend on where the text was cut.
        found = [
            (place + len(string), place) for string in self._strings if (place := text.find(string)) >= 0
        ]
        if found:
            self.hit = True
            self._held = ""
            return text[: min(found)[1]]
        keep = max(_longest_partial_match(text, string) for string in self._strings)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Give what was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return held


def _longest_partial_match(text: str, string: str) -> int:
    """Count how many characters at the end of `text` could begin `string`."""
    return next(
        (size for size in range(min(len(string) - 1, len(text)), 0, -1) if text.endswith(string[:size])), 0
    )

"""Takes keys and account ids out of what a server repeats, in whatever spelling it does."""

import re
from collections.abc import Iterable
from functools import lru_cache


class Redactor:
    """Replaces the secrets of one call."""

    __slots__ = ("_labels",)

    def __init__(self, labels: Iterable[tuple[str | None, str]]) -> None:
        """Take the secrets, each with the text in its place; None is skipped."""
        self._labels = [(secret, label) for secret, label in labels if secret]

    def redact(self, text: str) -> str:
        """Replace the secrets in a text: plain, with JSON's or HTML's escapes, or percent-encoded."""
        for secret, label in self._labels:
            text = _spellings(secret).sub(lambda _, label=label: label, text)
        return text

    def redact_plain(self, text: str) -> str:
        """As `redact`, of plain spellings only, at next to no cost."""
        for secret, label in self._labels:
            if secret in text:
                text = text.replace(secret, label)
        return text


@lru_cache(maxsize=16)
def _spellings(secret: str) -> re.Pattern[str]:
    return re.compile("".join(map(_spellings_of_character, secret)))


def _spellings_of_character(character: str) -> str:
    code = ord(character)
    return (
        rf"(?:{re.escape(character)}|\\+{re.escape(character)}"
        rf"|\\+u(?i:{code:04x})|%(?:25)*(?i:{code:02x})|&\#0*{code};|&\#[xX]0*(?i:{code:x});)"
    )

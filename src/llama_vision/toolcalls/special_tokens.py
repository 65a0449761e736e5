"""Removes special tokens that leak at the end of a reply, and the header of the turn at its beginning.

DeepInfra's own sample stream ends in `</s>`; others let Llama's tokens through. They are removed at the very end only, with
the white space after them, never inside the text, and may arrive in pieces. So is the header `<|start_header_id|>...` at the
very beginning, which a server leaks whose chat template does not end in it.
"""

import re

_HEADER = "<|start_header_id|>assistant<|end_header_id|>"
STOP_TOKENS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>")

# Not possessive, here and elsewhere: Python 3.11.2, which Debian 12 has, matches repeated possessive groups wrongly.
_TOKEN_RUN = re.compile(rf"(?:(?:{'|'.join(re.escape(token) for token in STOP_TOKENS)})\s*)*")
_SPACE = re.compile(r"\s*")
_TOKEN_PREFIXES = frozenset(token[:cut] for token in STOP_TOKENS for cut in range(len(token)))
_MAX_LENGTH = max(map(len, STOP_TOKENS))


class SpecialTokenFilter:
    """Holds back what may be the stop tokens at the end of a text, or the header at its beginning."""

    __slots__ = ("_beginning", "_held", "_prefix")

    def __init__(self) -> None:
        self._held: list[str] = []  # whole tokens
        self._prefix = ""  # of one more
        self._beginning: str | None = ""  # of the header; None once the text has begun

    def feed(self, text: str) -> str:
        """Return as much of the text so far as is certainly part of the reply."""
        if self._beginning is not None:
            text = self._after_header(self._beginning + text)
        if not (self._held or self._prefix or "<" in text):
            return text
        text = self._prefix + text
        start, self._prefix = _tail(text, follows_token=bool(self._held))
        tokens = text[start : len(text) - len(self._prefix)]
        certain = "".join(self._held) + text[:start] if start else ""
        if start:
            self._held.clear()
        if tokens:
            self._held.append(tokens)
        return certain

    def _after_header(self, text: str) -> str:
        """Return the beginning of the text behind the header, once it is known."""
        rest = text.removeprefix(_HEADER).lstrip() if text.startswith(_HEADER) else text
        is_known = bool(rest) and not _HEADER.startswith(text)
        self._beginning = None if is_known else text[: len(_HEADER)]
        return rest if is_known else ""

    def close(self) -> str:
        """End the text, and return what was held back and is neither a stop token nor the header after all."""
        held = "".join([*self._held, self._prefix]) if self._prefix else ""
        if self._beginning and self._beginning != _HEADER:
            held = self._beginning
        self._beginning = None
        self._held.clear()
        self._prefix = ""
        return held


def _tail(text: str, *, follows_token: bool) -> tuple[int, str]:
    """Find where a run of stop tokens that reaches the end of `text` begins, and the prefix of one more at the end."""
    start = 0 if follows_token else text.find("<")
    while start >= 0:
        space = _SPACE.match(text) if follows_token and start == 0 else None
        run = _TOKEN_RUN.match(text, space.end() if space else start)
        end = run.end() if run else start
        if text[end : end + _MAX_LENGTH] in _TOKEN_PREFIXES:
            return start, text[end:]
        start = text.find("<", max(end, start + 1))
    return len(text), ""

"""Special tokens that leak at the end of a reply are removed.

DeepInfra's own sample stream ends in `</s>`; others let Llama's tokens through. They are removed at the very end only, with
the white space after them, never inside the text, and may arrive in pieces.
"""

import re

STOP_TOKENS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>")

# Not possessive, here and elsewhere: Python 3.11.2, which Debian 12 has, reads repeated groups of that kind wrongly.
_TOKEN_RUN = re.compile(rf"(?:(?:{'|'.join(re.escape(token) for token in STOP_TOKENS)})\s*)*")
_SPACE = re.compile(r"\s*")
_TOKEN_PREFIXES = frozenset(token[:cut] for token in STOP_TOKENS for cut in range(len(token)))
_MAX_LENGTH = max(map(len, STOP_TOKENS))


class TrailingSpecialTokenFilter:
    """Holds back what may be the stop tokens at the end of a text."""

    __slots__ = ("_begun", "_held")

    def __init__(self) -> None:
        self._held: list[str] = []  # whole tokens
        self._begun: str = ""  # the beginning of one

    def feed(self, text: str) -> str:
        """Return as much of the text so far as is certainly part of the reply."""
        if not (self._held or self._begun or "<" in text):
            return text
        text = self._begun + text
        start, self._begun = _tail(text, follows_token=bool(self._held))
        tokens = text[start : len(text) - len(self._begun)]
        certain = "".join(self._held) + text[:start] if start else ""
        if start:
            self._held.clear()
        if tokens:
            self._held.append(tokens)
        return certain

    def close(self) -> str:
        """End the text, and return what was held back and is not a stop token after all."""
        held = "".join([*self._held, self._begun]) if self._begun else ""
        self._held.clear()
        self._begun = ""
        return held


def _tail(text: str, *, follows_token: bool) -> tuple[int, str]:
    """Find where a run of stop tokens reaches the end of `text`, and the beginning of one more after it."""
    place = 0 if follows_token else text.find("<")
    while place >= 0:
        space = _SPACE.match(text) if follows_token and place == 0 else None
        run = _TOKEN_RUN.match(text, space.end() if space else place)
        end = run.end() if run else place
        if text[end : end + _MAX_LENGTH] in _TOKEN_PREFIXES:
            return place, text[end:]
        place = text.find("<", max(end, place + 1))
    return len(text), ""

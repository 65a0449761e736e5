"""Control tokens that leak out at the end of a reply are never part of the answer.

DeepInfra's own sample stream ends in `</s>`; others let Llama's tokens through. They are taken off the very end only,
never out of the text, and may arrive in pieces.
"""

import re

STOP_TOKENS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>")

_WHOLE = "|".join(re.escape(token) for token in STOP_TOKENS)
_BEGUN = "|".join(
    sorted({re.escape(token[:cut]) for token in STOP_TOKENS for cut in range(1, len(token))}, key=len)[::-1]
)
_TAIL = re.compile(f"(?:{_WHOLE})*(?:{_BEGUN})?\\Z")
_ALL_TOKENS = re.compile(f"(?:{_WHOLE})+\\Z")


class StopTokenFilter:
    """Holds back what may turn out to be the stop tokens at the end of a text."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: str = ""

    def feed(self, text: str) -> str:
        """Take in the next words.

        Args:
            text: As it was received.

        Returns:
            What is certainly part of the answer; often all of it.

        """
        if not self._held and "<" not in text:
            return text
        text = self._held + text
        cut = _tail_start(text)
        self._held = text[cut:]
        return text[:cut]

    def close(self) -> str:
        """Say that no more comes.

        Returns:
            What was held back and is not a stop token after all.

        """
        held, self._held = self._held, ""
        return "" if _ALL_TOKENS.match(held) else held


def _tail_start(text: str) -> int:
    """Find where a run of stop tokens, the last perhaps unfinished, reaches the end of `text`."""
    position = text.find("<")
    while position >= 0:
        if _TAIL.match(text, position):
            return position
        position = text.find("<", position + 1)
    return len(text)

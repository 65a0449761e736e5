"""One line on a terminal that says how far work is, how fast it goes and what it cost so far."""

import shutil
import sys
import time
from typing import Self

from llama_vision.core.formatting import format_cost
from llama_vision.core.usage import Usage

_REDRAW_S = 0.1


class ProgressLine:
    """Draws over itself on stderr, where that is a terminal; elsewhere it draws nothing."""

    def __init__(self, total: int) -> None:
        """Begin.

        Args:
            total: How many pieces of work there are.

        """
        self._total = total
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn_at = 0.0
        self._done = self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._drawn_at:
            print(file=sys.stderr)

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._began

    def step(self, *, failed: bool, asked: int, usage: Usage) -> None:
        """Take in that one more is done.

        Args:
            failed: Whether it went wrong.
            asked: How many answers came so far; what was known before takes no time and says nothing about the rate.
            usage: What they took.

        """
        self._done += 1
        self._failed += failed
        now = time.monotonic()
        if self._shown and (now - self._drawn_at >= _REDRAW_S or self._done == self._total):
            self._drawn_at = now
            width = (
                shutil.get_terminal_size().columns - 1
            )  # in the last column some terminals begin a new line
            line = self._line(asked, usage)[:width]
            print(f"\r{line:<{width}}", end="", file=sys.stderr, flush=True)

    def _line(self, asked: int, usage: Usage) -> str:
        facts = [f"{self._done} of {self._total}"]
        rate = asked / max(self.seconds, 1e-9)
        if asked:
            facts.append(f"{rate:.1f} a second")
            left = round((self._total - self._done) / rate)
            facts.append(f"{left // 60}:{left % 60:02} left")
        if usage.cost_usd is not None:
            facts.append(format_cost(usage, dollar_sign=True))
        if self._failed:
            facts.append(f"{self._failed} failed")
        return " | ".join(facts)

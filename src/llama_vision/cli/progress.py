"""A progress line on stderr: items done, rate, time left, cost."""

import shutil
import sys
import time
from typing import Self

from llama_vision.core.formatting import format_cost
from llama_vision.core.usage import Usage

_REDRAW_S = 0.1


class ProgressLine:
    """Redraws itself in place where stderr is a terminal; elsewhere it prints nothing."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._is_terminal = sys.stderr.isatty()
        self._start = time.monotonic()
        self._drawn_at = 0.0
        self._done = self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal and self._drawn_at:
            print(file=sys.stderr)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def step(self, *, failed: bool, num_replies: int, usage: Usage) -> None:
        """Count one more item as done, with the number and usage of the replies so far.

        The rate is that of replies (`num_replies`): items that were in the log already take no time.
        """
        self._done += 1
        self._failed += failed
        now = time.monotonic()
        if self._is_terminal and (now - self._drawn_at >= _REDRAW_S or self._done == self._total):
            self._drawn_at = now
            # Some terminals begin a new line after the last column.
            width = shutil.get_terminal_size().columns - 1
            line = self._line(num_replies, usage)[:width]
            print(f"\r{line:<{width}}", end="", file=sys.stderr, flush=True)

    def _line(self, num_replies: int, usage: Usage) -> str:
        facts = [f"{self._done} of {self._total}"]
        rate = num_replies / max(self.seconds, 1e-9)
        if num_replies:
            facts.append(f"{rate:.1f} a second")
            left = round((self._total - self._done) / rate)
            facts.append(f"{left // 60}:{left % 60:02} left")
        if usage.cost_usd is not None:
            facts.append(format_cost(usage, dollar_sign=True))
        if self._failed:
            facts.append(f"{self._failed} failed")
        return " | ".join(facts)

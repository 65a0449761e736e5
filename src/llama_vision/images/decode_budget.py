"""The memory that decoding may take, of one image and over all threads."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from threading import Condition, Lock

MAX_DECODE_BYTES = 480_000_000
"""The memory in bytes that images being decoded may take together."""


class DecodeBudget:
    """A counting semaphore of bytes: whoever wants to decode waits until others have finished; safe for threads.

    Args:
        max_bytes: The most that may be reserved at a time.
    """

    def __init__(self, max_bytes: int = MAX_DECODE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._reserved = 0
        self._released = Condition()
        self._turn = Lock()

    @contextmanager
    def reserve(self, num_bytes: int) -> Generator[None]:
        """Wait for memory and hold it for a block; never for more than `max_bytes`."""
        num_bytes = min(num_bytes, self.max_bytes)
        with self._turn, self._released:  # in turn: small images must not overtake a large one for ever
            self._released.wait_for(lambda: self._reserved + num_bytes <= self.max_bytes)
            self._reserved += num_bytes
        try:
            yield
        finally:
            with self._released:
                self._reserved -= num_bytes
                self._released.notify()


decode_budget = DecodeBudget()
"""The budget of this process."""


def _reset_after_fork() -> None:
    """Release all: a forked process has none of the threads that would do so."""
    decode_budget.__init__()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

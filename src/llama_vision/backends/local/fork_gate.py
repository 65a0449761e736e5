"""Keeps forks out of torch's code.

A fork copies the locks of native libraries as they are, and none of the threads that hold them: what needs such a lock in the
child waits for ever. So a fork waits until the steps that run are over, and the next ones wait for the fork.
"""

import threading

_TIMEOUT_S = 5.0
"""A fork waits no longer: a step with long prompts may take minutes on a CPU."""


class ForkGate:
    """A context manager, for as long as a thread is in native code; `close` and `open` surround a fork in the parent.

    Attributes:
        was_forced: Whether the last fork did not wait for all threads that were inside.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a process where the other threads are gone."""
        self.was_forced = False
        self._condition = threading.Condition()
        self._inside: set[threading.Thread] = set()
        self._forking: set[threading.Thread] = set()

    def __enter__(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._forking)
            self._inside.add(threading.current_thread())

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._inside.discard(threading.current_thread())
            self._condition.notify_all()

    def close(self) -> None:
        """Wait until no thread is inside, for some seconds, and let none enter until `open`, in the same thread."""
        self._condition.acquire()
        self._forking.add(threading.current_thread())
        self.was_forced = not self._condition.wait_for(lambda: not self._is_inside(), _TIMEOUT_S)

    def open(self) -> None:
        """End what `close` has begun, unless it was interrupted before it began."""
        if threading.current_thread() in self._forking:
            self._forking.discard(threading.current_thread())
            self._condition.notify_all()
            self._condition.release()

    def _is_inside(self) -> bool:
        # A thread that was killed inside leaves nothing else.
        return any(thread.is_alive() for thread in self._inside)

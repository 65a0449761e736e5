"""Circuit breakers: whom not to ask for a while, shared by the whole process."""

import os
import threading
import time
from collections.abc import Callable, Hashable

from llama_vision.core.errors import LlamaVisionError, QuotaExhaustedError, StatusError

_QUOTA_COOL_DOWN_S = 3600.0
"""After an exhausted quota without a Retry-After: a day's or a month's is not back in seconds."""


class CircuitBreaker:
    """Whether one model at one address may be asked.

    It opens by a Retry-After, or after failures in a row. When the time is over, one call tries, and the others go on
    waiting until it succeeds or another cool-down has passed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0
        self._is_open = self._has_trial = False
        self._reason: tuple[type[LlamaVisionError], str, int] = (LlamaVisionError, "", 0)

    def try_acquire(self, cool_down: float) -> bool:
        """Whether a call may be sent now."""
        with self._lock:
            now = self._clock()
            if self._is_open and now < self._open_until:
                return False
            if self._is_open:
                self._open_until = now + cool_down  # this call is the trial
                self._has_trial = True
            return True

    def remaining(self) -> float:
        """Return the seconds until the next call may be sent; 0 for now."""
        with self._lock:
            return max(0.0, self._open_until - self._clock()) if self._is_open else 0.0

    def record_success(self) -> None:
        """Close: it answers. A reply to a call that was sent before it opened ends no cool-down."""
        with self._lock:
            if self._has_trial or not self._is_open:
                self._failures, self._is_open, self._has_trial = 0, False, False

    def record_failure(self, error: LlamaVisionError, *, max_failures: int, cool_down: float) -> None:
        """Count a failure, and open where there were enough or the provider says so."""
        retry_after = error.retry_after if isinstance(error, StatusError) else None
        if retry_after is None and isinstance(error, QuotaExhaustedError):
            retry_after = _QUOTA_COOL_DOWN_S
        with self._lock:
            self._failures += 1
            wait = retry_after or 0.0
            if self._failures >= max_failures:
                wait = max(wait, cool_down)
            if not wait:
                return
            status = error.status_code if isinstance(error, StatusError) else 0
            self._reason = (type(error), str(error.args[0]) if error.args else "", status)
            # Calls that were under way together may come back in any order: the longest time counts.
            until = self._clock() + wait
            self._open_until = max(self._open_until, until) if self._is_open else until
            self._is_open, self._has_trial = True, False

    def refusal(self) -> LlamaVisionError:
        """Make the error of a call that was not sent: of the class of the failure that opened the breaker."""
        seconds = self.remaining()
        with self._lock:
            kind, text, status = self._reason
        error = kind(f"Not asked: it cools down for another {seconds:.3g} s, after: {text}")
        if isinstance(error, StatusError):
            error.status_code, error.retry_after = status, seconds
        return error


class _Breakers:
    """The breakers of the process; a forked one begins with none, as the parent's locks may have been held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._breakers: dict[Hashable, CircuitBreaker] = {}

    def get(self, key: Hashable) -> CircuitBreaker:
        with self._lock:
            return self._breakers.setdefault(key, CircuitBreaker())


_breakers = _Breakers()


def shared_breaker(key: Hashable) -> CircuitBreaker:
    """Return the breaker of an address, a model and a key."""
    return _breakers.get(key)


def close_breakers() -> None:
    """Forget all failures: every provider may be asked again."""
    global _breakers  # noqa: PLW0603 - the state of the process
    _breakers = _Breakers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=close_breakers)

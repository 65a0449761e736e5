"""Retries: which failures, and after which delay."""

import email.utils
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from llama_vision.core.errors import ConnectionFailedError, LlamaVisionError, StatusError

_INITIAL_DELAY_S = 0.5
_MAX_DELAY_S = 8.0
_MAX_DOUBLINGS = 10  # more are beyond the maximum, and after 1,024 beyond a float
_MAX_RETRY_AFTER_S = 60.0
"""A longer Retry-After is not waited for: the error says what the provider asked for."""


@dataclass(slots=True)
class RetryState:
    """The retries of one call, with exponential backoff and jitter.

    Retried are failures without a reply: no connection, 408, 409, 429, 5xx. A call that timed out may have been answered
    and billed, so it is left to the caller.
    """

    attempts_left: int
    attempts_made: int = 0
    deadline: float = math.inf  # of the call, on the monotonic clock

    def next_delay(self, error: LlamaVisionError) -> float:
        """Compute the seconds before the next attempt, or raise `error` where there is none."""
        retry_after = error.retry_after if isinstance(error, StatusError) else None
        is_retried = error.retryable and isinstance(error, (ConnectionFailedError, StatusError))
        if not is_retried or self.attempts_left < 1 or (retry_after or 0) > _MAX_RETRY_AFTER_S:
            raise error
        # Jitter, so that clients refused together do not return together; never earlier than Retry-After.
        backoff = min(_MAX_DELAY_S, _INITIAL_DELAY_S * 2 ** min(self.attempts_made, _MAX_DOUBLINGS))
        delay = retry_after if retry_after is not None else backoff * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        if time.monotonic() + delay >= self.deadline:
            raise error
        self.attempts_left -= 1
        self.attempts_made += 1
        return delay


def parse_retry_headers(headers: Mapping[str, str]) -> float | None:
    """Read the seconds that a provider asks to wait, from `retry-after-ms` (OpenAI, Azure) or `retry-after`; None without."""
    milliseconds = parse_retry_after(headers.get("retry-after-ms"))
    return parse_retry_after(headers.get("retry-after")) if milliseconds is None else milliseconds / 1000


def parse_retry_after(value: str | None) -> float | None:
    """Parse a Retry-After header, seconds or an HTTP date, into seconds from now; None where it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None

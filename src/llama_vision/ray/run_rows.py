"""Runs the rows of a batch on a thread pool; stops on a fatal error."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from llama_vision.core.errors import FATAL_ERRORS
from llama_vision.ray.rows import RowResult


def run_rows(rows: Sequence[Callable[[], RowResult]], *, concurrency: int, keep: bool) -> list[RowResult]:
    """Run rows concurrently, in order. Threads share connections from batch to batch, which event loops would not.

    Args:
        rows: One callable for each row, which raises nothing.
        concurrency: Maximum rows in flight.
        keep: Whether failures are kept in their rows.

    Raises:
        Exception: The first failure, unless they are kept, with a note that names the row.
    """
    stopped: Exception | None = None

    def work(number: int) -> RowResult:
        nonlocal stopped
        if stopped is not None:
            return RowResult(error=stopped)
        result = rows[number]()
        error = result.error
        if error is not None and stopped is None and (not keep or isinstance(error, FATAL_ERRORS)):
            error.add_note(f"This was row {number + 1} of a batch of {len(rows)}.")
            stopped = error
        return result

    if not rows:
        return []
    with ThreadPoolExecutor(min(concurrency, len(rows)), "llama-vision batch") as pool:
        try:
            results = list(pool.map(work, range(len(rows))))
        except BaseException:  # Ctrl-C: queued rows are cancelled
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if stopped is not None and not keep:
        raise stopped
    return results

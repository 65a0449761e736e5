"""The rows of a batch answered in threads, until all are or until there is no use in going on."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from llama_vision.core.errors import FATAL_ERRORS
from llama_vision.ray.rows import RowResult


def run_rows(rows: Sequence[Callable[[], RowResult]], *, concurrency: int, keep: bool) -> list[RowResult]:
    """Answer rows. In threads, because they share connections from batch to batch, which an event loop would not.

    Args:
        rows: What answers each. It raises nothing.
        concurrency: How many are under way at once.
        keep: Whether failures are kept.

    Returns:
        What became of each row, in their order.

    Raises:
        Exception: The first failure, where they are not kept; a note on it says of which row.

    """
    stopped: Exception | None = None

    def work(number: int) -> RowResult:
        nonlocal stopped
        if stopped is not None:
            return RowResult(error=stopped)
        answer = rows[number]()
        if (
            answer.error is not None
            and stopped is None
            and (not keep or isinstance(answer.error, FATAL_ERRORS))
        ):
            answer.error.add_note(f"This was row {number + 1} of a batch of {len(rows)}.")
            stopped = answer.error
        return answer

    if not rows:
        return []
    with ThreadPoolExecutor(min(concurrency, len(rows)), "llama-vision batch") as pool:
        try:
            answers = list(pool.map(work, range(len(rows))))
        except BaseException:  # Ctrl-C: what waits is not begun any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if stopped is not None and not keep:
        raise stopped
    return answers

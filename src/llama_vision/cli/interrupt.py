"""Ctrl-C while a command runs: the process ends at once, also in the middle of an import, and prints no traceback.

This module imports as little as it can, since until it is imported Python raises KeyboardInterrupt wherever it is.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""Exit code: 128 and the number of SIGINT, as shells have it."""


def exit_on_interrupt() -> None:
    """Let SIGINT end the process at once, with exit code 130.

    At once, since a thread may be importing torch, which takes seconds and can't be interrupted. Where SIGINT is ignored
    (`nohup`, `&` in a script) it stays ignored, and who handles it goes on to do so.
    """
    _replace(signal.default_int_handler, _exit)


@contextlib.contextmanager
def raising_interrupt() -> Generator[None]:
    """Let SIGINT raise KeyboardInterrupt while the block runs, for what has something to say or to put away."""
    replaced = _replace(_exit, signal.default_int_handler)
    try:
        yield
    finally:
        if replaced:
            signal.signal(signal.SIGINT, _exit)


def _replace(old: object, new: Callable[[int, FrameType | None], Any]) -> bool:
    is_main = threading.current_thread() is threading.main_thread()  # no other may set one
    if is_main and signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)
        return True
    return False


def _exit(*_: object) -> None:
    os._exit(INTERRUPTED)

"""What is piped into `ask`: an image, a document or the question."""

import mimetypes
import os
import re
import select
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from llama_vision.core.errors import ConfigurationError

STDIN = "-"
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_WAIT_S = 0.2  # for who writes into the pipe to begin


def split_inputs(inputs: Sequence[str]) -> tuple[list[str], str]:
    """Tell images from the question, which is the last argument, or is piped in.

    Args:
        inputs: The arguments of `ask`. `-` reads stdin: as the last one the question, as another one an image.

    Returns:
        The images, `-` among them if one is piped in, and the question.

    Raises:
        ConfigurationError: There is no question, or what is piped in can't be one.
    """
    *sources, last = inputs
    if inputs.count(STDIN) > 1:
        raise ConfigurationError("- reads stdin, and only one of the arguments can be that.")
    if last == STDIN:
        return sources, _read_question()
    if _is_source(last):
        if STDIN in sources or not _is_piped():
            raise ConfigurationError(
                f"{last} is a file or an address, and the question is missing: give it as the last argument."
            )
        return [*sources, last], _read_question()
    if not sources and _has_piped_data():
        return [STDIN], last
    return sources, last


def read_stdin() -> bytes:
    """Read an image or a document that is piped in.

    Raises:
        ConfigurationError: Nothing is.
    """
    data = sys.stdin.buffer.read()
    if not data:
        raise ConfigurationError("Nothing is piped in where an image should be.")
    return data


def _is_source(argument: str) -> bool:
    """Tell whether an argument is an image and no question: a file, a URL, or the name of a file that is not there."""
    if _URL.fullmatch(argument):
        return True
    media_type = mimetypes.guess_type(argument)[0] or ""
    is_name = len(argument.split()) == 1 and (
        media_type.startswith("image/") or media_type == "application/pdf"
    )
    return is_name or Path(argument).is_file()


def _read_question() -> str:
    try:
        question = sys.stdin.buffer.read().decode().strip()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            "What is piped in is no text in UTF-8: give the question as the last argument."
        ) from error
    if not question:
        raise ConfigurationError("The question is missing: give it as the last argument, or pipe it in.")
    return question


def _stdin_mode() -> int:
    """Return what stdin is, for the functions of `stat`; 0 where that can't be told."""
    try:
        return os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or replaced in a test or a notebook
        return 0


def _is_piped() -> bool:
    mode = _stdin_mode()
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _has_piped_data() -> bool:
    """Tell whether somebody writes into a pipe. A file is left alone: a loop of the shell may be reading it."""
    if not stat.S_ISFIFO(_stdin_mode()):
        return False
    try:
        ready = select.select([sys.stdin], [], [], _WAIT_S)[0]
    except (OSError, ValueError):  # no pipes on Windows
        return False
    return bool(ready) and bool(_peek())


def _peek() -> bytes:
    """Look at the first bytes without taking them; none where the other end is closed."""
    peek = getattr(sys.stdin.buffer, "peek", None)
    return b"" if peek is None else peek(1)

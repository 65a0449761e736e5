"""Reads files, and whatever has `read()`, up to a limit: a device or a pipe may have no end."""

import inspect
import io
import os
import select
import stat
import time
from collections.abc import Coroutine
from typing import Any, cast

from llama_vision.core.errors import ImageError

MAX_FILE_BYTES = 128_000_000
"""The maximum size of a file that is read, in bytes: an A4 page in color at 600 dpi, uncompressed, has 104 million."""

PIPE_TIMEOUT_S = 10.0
"""Seconds to wait for a pipe or a device that a path names."""

_PIECE_BYTES = 1 << 20
_MAX_QUOTED = 200  # characters: a whole path, but only the beginning of base64 passed in its place
_ADVICE = f"more than {MAX_FILE_BYTES // 1_000_000} MB, which is too much. Scale the image down, or split the document"


def shorten(text: str) -> str:
    """Shorten a path, a URL or other text for an error."""
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "..."


def read_path(path: str) -> bytes:
    """Read a file, `~` expanded; a pipe for at most ten seconds.

    Raises:
        ImageError: It can't be read, or is larger than `MAX_FILE_BYTES`.
    """
    try:
        return _read_path(os.path.expanduser(path))  # noqa: PTH111 - a Path can't be made of every text
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"The image {shorten(path)!r} can't be read: {reason}.") from error


def _read_path(path: str) -> bytes:
    if path.startswith("~"):
        raise ValueError("there is no such user")
    # Opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_FILE_BYTES and stat.S_ISREG(status.st_mode):
            raise ValueError(f"it has {status.st_size / 1e6:,.0f} MB, {_ADVICE}")
        deadline = None if stat.S_ISREG(status.st_mode) else time.monotonic() + PIPE_TIMEOUT_S
        return _read_to_end(file, deadline)


def _read_to_end(file: Any, deadline: float | None) -> bytes:
    """Read from where a file stands, piece by piece; with a deadline, wait for each piece until then."""
    data = bytearray()
    while len(data) <= MAX_FILE_BYTES:
        if deadline is not None and not select.select([file], [], [], max(0, deadline - time.monotonic()))[0]:
            raise ValueError(f"nothing came for {PIPE_TIMEOUT_S:g} s")
        piece = file.read(_PIECE_BYTES)
        if not piece:
            return bytes(data)
        data += piece
    raise ValueError(f"it has {_ADVICE}")


def read_source(source: Any) -> bytes:
    """Read bytes, or an object that gives them by `read()`, `read_bytes()` or `content`, such as a response or an upload.

    A file is read from its beginning where it is seekable, so that it may be passed twice.

    Raises:
        ImageError: It is something else, gives no bytes, or more than `MAX_FILE_BYTES`.
    """
    try:
        data = _content(source)
    except ImageError:
        raise
    except Exception as error:  # files of other libraries raise anything
        raise ImageError(
            f"The open file can't be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"The {type(source).__name__} has {_ADVICE}.")
    return data


def _content(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return memoryview(source).tobytes()
    except TypeError:  # no buffer
        pass
    if hasattr(source, "read"):
        return _read_file(source)
    if hasattr(source, "read_bytes"):  # a `Traversable` of importlib.resources, a `zipfile.Path`
        return _as_bytes(source.read_bytes(), source)
    if isinstance(getattr(source, "content", None), bytes):  # a response of requests
        return source.content
    raise ImageError(
        f"A {type(source).__name__} is not an image. Give a path, bytes, an open file, a URL, a PIL image or an array."
    )


def _read_file(file: Any) -> bytes:
    if isinstance(file, io.TextIOBase):
        raise ImageError("The file is open for text; open it with mode 'rb'.")
    if inspect.iscoroutinefunction(file.read):
        if hasattr(file, "file"):  # Starlette's UploadFile
            return _read_file(file.file)
        raise _asynchronous(file)
    rewound = _rewind(file)
    if isinstance(file, io.IOBase):
        data = _read_pieces(file)
    else:
        try:
            data = file.read(MAX_FILE_BYTES + 1)
        except TypeError:  # it takes no size
            data = file.read()
    data = _as_bytes(data, file)
    if not data and not rewound:
        raise ImageError(
            "The open file gives nothing: it is empty, or was read before and can't be wound back."
        )
    return data


def _rewind(file: Any) -> bool:
    if not hasattr(file, "seek") or (hasattr(file, "seekable") and not file.seekable()):
        return False
    file.seek(0)
    return True


def _read_pieces(file: Any) -> Any:
    """Read a stream to its end: raw ones give less than is asked for."""
    first = file.read(MAX_FILE_BYTES + 1)
    if not isinstance(first, bytes):
        return first
    data = bytearray(first)
    while first and len(data) <= MAX_FILE_BYTES and (piece := file.read(MAX_FILE_BYTES + 1 - len(data))):
        data += piece
    return bytes(data)


def _as_bytes(data: object, source: Any) -> bytes:
    if inspect.isawaitable(data):
        if inspect.iscoroutine(data):
            cast("Coroutine[Any, Any, Any]", data).close()
        raise _asynchronous(source)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"The open file gives {type(data).__name__}, not bytes; open it with mode 'rb'.")
    return bytes(cast("bytes", data))


def _asynchronous(source: Any) -> ImageError:
    return ImageError(
        f"A {type(source).__name__} is read asynchronously. Await its read() and pass the bytes."
    )

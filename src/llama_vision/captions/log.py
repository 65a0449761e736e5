"""A file of JSON lines that captions are appended to as they come, so that an interrupted run can be resumed."""

import errno
import json
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Self

from llama_vision.core.errors import ConfigurationError
from llama_vision.core.json_types import as_mapping

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FIRST_BYTES = b'{"key": "'


@dataclass(frozen=True, slots=True)
class Caption:
    """A model's caption of an image.

    Attributes:
        text: The caption.
        truncated: Whether it was cut off at max_tokens.
    """

    text: str
    truncated: bool = False


class CaptionLog:
    """Captions by key, in memory and in a file if one is given, which is locked against other runs.

    Each caption is one line, appended in a single write: a killed process loses none that was written. An incomplete
    line, left by a full disk or a power failure, is ignored.
    """

    def __init__(self, path: Path | None, *, output: FileIO | None = None) -> None:
        """Read the file, which need not exist.

        Args:
            path: The file.
            output: In its place, what lines are written to and none are read from, such as stdout.

        Raises:
            ConfigurationError: It can't be read or written, is in use by another run, or holds something else, which
                is left unchanged.
        """
        self._captions: dict[str, Caption] = {}
        self._lines: set[tuple[str, str, int | None]] = set()  # (key, file, page)
        self._separator = b""
        self._file = output if path is None else _open(path)
        if path is None or self._file is None:
            return
        try:
            content = path.read_bytes()
            _check_format(content, path)
        except BaseException:
            self._file.close()
            raise
        self._separator = b"" if content.endswith(b"\n") or not content else b"\n"
        for line in content.splitlines():
            self._read(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, key: str) -> Caption | None:
        """Look up a caption.

        Args:
            key: The key it was added with.

        Returns:
            The caption, or None.
        """
        return self._captions.get(key)

    def has(self, key: str, file: str, page: int | None = None) -> bool:
        """Tell whether there is a line for a file.

        Args:
            key: The key of its caption.
            file: The image's name in the log.
            page: The page of a document.

        Returns:
            Whether there is one.
        """
        return (key, file, page) in self._lines

    def add(self, key: str, caption: Caption, *, file: str, page: int | None = None, **details: Any) -> None:
        """Add a caption.

        Args:
            key: What to look it up by.
            caption: The caption.
            file: The image's name in the log.
            page: The page of a document.
            **details: Further fields of the line, for people who read the file.

        Raises:
            OSError: The line can't be written, as where the disk is full. The caption is kept in memory.
        """
        self._captions[key] = caption
        self._lines.add((key, file, page))
        if self._file is not None:
            place = {"file": file} if page is None else {"file": file, "page": page}
            line = {"key": key, "caption": caption.text, "cut": caption.truncated, **place, **details}
            # A file's name may hold surrogates; written with backslashes it is valid JSON all the same.
            text = json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace")
            unwritten = self._separator + text + b"\n"
            self._separator = b"\n"  # for the next line, should this one stay incomplete
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]
            self._separator = b""

    def _read(self, line: bytes) -> None:
        try:
            fields = as_mapping(json.loads(line))
        except (
            ValueError,
            RecursionError,
        ):  # an incomplete line: errors of JSON and of UTF-8 are ValueErrors
            return
        if isinstance(fields.get("key"), str) and isinstance(fields.get("caption"), str):
            self._captions[fields["key"]] = Caption(fields["caption"], bool(fields.get("cut")))
            page = fields.get("page")
            self._lines.add((fields["key"], str(fields.get("file")), page if isinstance(page, int) else None))


def _open(path: Path) -> FileIO:
    """Open for appending, and lock until it is closed or the process ends."""
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            raise OSError(errno.EINVAL, "it is no regular file")  # noqa: TRY301 - said as the system's own errors are
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab", buffering=0)  # a buffer would be written once more when the file is closed
    except OSError as error:
        raise ConfigurationError(
            f"Captions can't be kept in {str(path)!r}: {error.strerror}. Give a file that may be written, or none."
        ) from error
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConfigurationError(
            f"Another run is writing its captions to {str(path)!r}. Wait for its end, or give another file."
        ) from error
    except OSError:
        pass  # a file system without locks
    return file


def _check_format(content: bytes, path: Path) -> None:
    """Refuse to append to a file of another format; one of ours may end within its first bytes."""
    first = content.lstrip().partition(b"\n")[0][: len(_FIRST_BYTES)]
    if not _FIRST_BYTES.startswith(first):
        raise ConfigurationError(f"{str(path)!r} holds no captions, and is left as it is. Give another file.")

"""Captions in a file of JSON lines, written as they come, so that work that was stopped can go on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llama_vision.core.errors import ConfigurationError
from llama_vision.core.json_types import as_mapping

_BEGINS = b'{"key": "'


@dataclass(frozen=True, slots=True)
class Caption:
    """What a model said about an image.

    Attributes:
        text: Its words.
        truncated: Whether they end at max_tokens and not where the model would have ended.

    """

    text: str
    truncated: bool = False


class CaptionLog:
    """Remembers captions by key, and forgets them in the end where no file was given.

    Each is one line, added to the end in one write: a process that is killed loses none that is written. A line that is
    half there, because the disk was full or the machine lost its power, counts as not there.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what is there.

        Args:
            path: The file; it need not exist.

        Raises:
            ConfigurationError: It can't be read or written, or holds something else, which is left as it is.

        """
        self._known: dict[str, Caption] = {}
        self._lines: set[tuple[str, str]] = set()  # keys and files
        self._file = None
        if path is None:
            return
        try:
            written = path.read_bytes() if path.exists() else b""
            _check(written, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise ConfigurationError(
                f"Captions can't be kept in {str(path)!r}: {error.strerror}. Give a file that may be written, or none."
            ) from error
        self._separator = b"" if written.endswith(b"\n") or not written else b"\n"
        for line in written.splitlines():
            self._read(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, key: str) -> Caption | None:
        """Look a caption up.

        Args:
            key: What the caption was kept under.

        Returns:
            The caption, or None where there is none.

        """
        return self._known.get(key)

    def has(self, key: str, file: str) -> bool:
        """Tell whether there is a line for this file, with this caption.

        Args:
            key: What the caption was kept under.
            file: The image's name in the log.

        Returns:
            Whether there is one.

        """
        return (key, file) in self._lines

    def add(self, key: str, caption: Caption, *, file: str, **about: Any) -> None:
        """Remember a caption.

        Args:
            key: What to find it by.
            caption: What to remember.
            file: Which image it is of.
            **about: For people who read the file.

        """
        self._known[key] = caption
        self._lines.add((key, file))
        if self._file is not None:
            line = {"key": key, "caption": caption.text, "cut": caption.truncated, "file": file, **about}
            # A file's name may hold what is no text; written with backslashes it is JSON all the same.
            text = json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace")
            self._file.write(self._separator + text + b"\n")
            self._file.flush()
            self._separator = b""

    def _read(self, line: bytes) -> None:
        try:
            found = as_mapping(json.loads(line))
        except ValueError:  # half a line: JSON's errors and those of UTF-8 are ValueErrors
            return
        if isinstance(found.get("key"), str) and isinstance(found.get("caption"), str):
            self._known[found["key"]] = Caption(found["caption"], bool(found.get("cut")))
            self._lines.add((found["key"], str(found.get("file"))))


def _check(written: bytes, path: Path) -> None:
    """Refuse to write into a file that is something else; of ours, less than the beginning may be there."""
    begins = written.lstrip().partition(b"\n")[0][: len(_BEGINS)]
    if not _BEGINS.startswith(begins):
        raise ConfigurationError(f"{str(path)!r} holds no captions, and is left as it is. Give another file.")

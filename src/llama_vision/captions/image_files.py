"""Finds image files by their content, since suffixes are often wrong."""

import mimetypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llama_vision.core.errors import ImageError
from llama_vision.images.media_type import sniff_media_type

Paths: TypeAlias = "str | Path | Iterable[str | Path]"
"""A folder, an image, or several of both."""

_NUM_HEADER_BYTES = 512  # more than the magic bytes of any image format


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Result of `find_images`.

    Attributes:
        images: Absolute paths, each once, in the order given; those of a folder sorted.
        skipped: Files in folders that neither are images nor have an image's suffix.
    """

    images: list[Path]
    skipped: list[Path]


def absolute(path: str | Path) -> Path:
    """Make a path absolute; `~` is the home directory, and symbolic links are not resolved."""
    return Path(path).expanduser().absolute()


def find_images(paths: Paths, *, exclude: Path | None = None) -> ImageFiles:
    """Find images; folders are searched recursively, without hidden entries (`.git`, `.ipynb_checkpoints`).

    A file that is given by name, or has an image's suffix, counts as an image whatever it holds: captioning it fails,
    and that is reported.

    Args:
        paths: Files and folders.
        exclude: A file to leave out.

    Returns:
        The files.

    Raises:
        ImageError: A single path was given, and it does not exist.
    """
    if isinstance(paths, (str, Path)) and not absolute(paths).exists():
        raise ImageError(f"There is no folder or image {str(paths)!r}.")
    given = [paths] if isinstance(paths, (str, Path)) else paths
    images: dict[Path, None] = {}  # an ordered set
    skipped: dict[Path, None] = {}
    for path in map(absolute, given):
        if not path.is_dir():
            images[path] = None
            continue
        for file in _files_in(path):
            if file != exclude:
                (images if _may_be_image(file) else skipped)[file] = None
    return ImageFiles(list(images), [file for file in skipped if file not in images])


def _files_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def _may_be_image(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            sniff_media_type(opened.read(_NUM_HEADER_BYTES))
    except OSError:
        return True  # reading it later will report why that fails
    except ImageError:
        return (mimetypes.guess_type(file.name)[0] or "").startswith("image/")
    return True

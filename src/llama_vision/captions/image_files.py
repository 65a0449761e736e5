"""Which files are images: told by their bytes, since names are often wrong."""

import mimetypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llama_vision.core.errors import ImageError
from llama_vision.images.media_type import sniff_media_type

Paths: TypeAlias = "str | Path | Iterable[str | Path]"
"""A folder, an image, or several of both."""

_HEAD = 512  # bytes, more than any image's mark needs


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What was found.

    Attributes:
        images: Absolute paths, each once, in the order given; those of a folder by name.
        skipped: Files in folders that are no images and don't claim to be.

    """

    images: list[Path]
    skipped: list[Path]


def absolute(path: str | Path) -> Path:
    """Say where a file is, whatever the current folder will be.

    Args:
        path: From the current folder or from the root; `~` is the user's own.

    Returns:
        The path from the root.

    """
    return Path(path).expanduser().absolute()


def find_images(paths: Paths, *, exclude: Path | None = None) -> ImageFiles:
    """Look for images, in folders also further down; what is hidden (`.git`, `.ipynb_checkpoints`) stays so.

    A file that was named, or whose name ends like an image's, counts as one whatever it holds: it can't be captioned,
    and that is to be heard of.

    Args:
        paths: Where to look.
        exclude: A file to leave out.

    Returns:
        The files.

    Raises:
        ImageError: A single path was given, and there is nothing.

    """
    if isinstance(paths, (str, Path)) and not absolute(paths).exists():
        raise ImageError(f"There is no folder or image {str(paths)!r}.")
    given = [paths] if isinstance(paths, (str, Path)) else paths
    images: dict[Path, None] = {}  # in order, and each once
    passed_over: dict[Path, None] = {}
    for path in map(absolute, given):
        if not path.is_dir():
            images[path] = None
            continue
        for file in _files_in(path):
            if file != exclude:
                (images if _may_be_a_image(file) else passed_over)[file] = None
    return ImageFiles(list(images), [file for file in passed_over if file not in images])


def _files_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def _may_be_a_image(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            sniff_media_type(opened.read(_HEAD))
    except OSError:
        return True  # whoever reads it will say why that is not possible
    except ImageError:
        return (mimetypes.guess_type(file.name)[0] or "").startswith("image/")
    return True

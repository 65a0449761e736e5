"""Finds images and pages of documents by the content of files, since suffixes are often wrong."""

import hashlib
import mimetypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from llama_vision.core.errors import DocumentError, ImageError, MissingDependencyError
from llama_vision.core.messages import Image
from llama_vision.images import image_from_any
from llama_vision.images.documents import (
    OpenedDocument,
    Page,
    document_from_any,
    is_document,
    open_document,
)
from llama_vision.images.media_type import sniff_media_type
from llama_vision.images.pdf import is_pdf

Paths: TypeAlias = "str | Path | Iterable[str | Path]"
"""A folder, an image, or several of both."""

_NUM_HEADER_BYTES = 1024  # within which a PDF's header may stand; the magic bytes of images are fewer


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Result of `find_images`.

    Attributes:
        images: Absolute paths, each once, in the order given; those of a folder sorted.
        skipped: Files in folders that neither are images nor have the suffix of an image that could be read.
    """

    images: list[Path]
    skipped: list[Path]


@dataclass(frozen=True, slots=True)
class ImageContent:
    """An image that was read.

    Attributes:
        image: The image, or the page as an image.
        digest: SHA-256 of the file, or of the page's pixels.
        text: The page's text layer; else empty.
        page_count: Of the whole document; None of an image.
    """

    image: Image
    digest: str
    text: str = ""
    page_count: int | None = None


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image to caption: a file, or a page of a document.

    Attributes:
        path: The file.
        page: The number of the page, from 1; None of a file that is no document.
        password: That of an encrypted PDF.
    """

    path: Path
    page: int | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return str(self.path) if self.page is None else f"{self.path}, page {self.page}"

    def read(self, *, lossless: bool) -> ImageContent:
        """Read the image.

        Args:
            lossless: Whether a page is encoded without loss.

        Returns:
            The image, and its digest.

        Raises:
            ImageError: It can't be read.
        """
        if self.page is not None:
            opened = _opened(self.path, self.path.stat().st_mtime_ns, self.password)
            if not 1 <= self.page <= opened.page_count:
                raise DocumentError(f"{self.path} has {opened.page_count} pages, and no page {self.page}.")
            return page_content(opened.page(self.page, lossless=lossless))
        return image_content(image_from_any(self.path))


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image to caption that is in memory, or has a URL.

    Attributes:
        name: What it is called in errors and in the log.
        content: The image, or why it can't be read.
        page: The number of the page, from 1; None of an image that is no page.
    """

    name: str
    content: ImageContent | Exception = field(repr=False)
    page: int | None = None

    @property
    def path(self) -> None:
        """None: there is no file."""
        return

    def __str__(self) -> str:
        return self.name if self.page is None else f"{self.name}, page {self.page}"

    def read(self, *, lossless: bool) -> ImageContent:  # noqa: ARG002 - it is encoded already
        """Return the content.

        Args:
            lossless: Not used: the image is encoded already.

        Returns:
            The image, and its digest.

        Raises:
            Exception: It can't be read; `content` is the reason.
        """
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def page_content(page: Page) -> ImageContent:
    """Return what is captioned of a page."""
    return ImageContent(page.image, page.digest, page.text, page.page_count)


def image_content(image: Image) -> ImageContent:
    """Return what is captioned of an image; one that has only a URL is known by it."""
    known_by = image.data if image.data is not None else (image.url or "").encode()
    return ImageContent(image, hashlib.sha256(known_by).hexdigest())


def list_pages(paths: Iterable[Path], *, password: str | None = None) -> list[ImageFile]:
    """List images, and each page of documents; a document that can't be opened is one, whose reading will tell why.

    Args:
        paths: The files.
        password: That of encrypted PDFs.

    Returns:
        What to caption, in the order of the files.
    """
    listed: list[ImageFile] = []
    for path in paths:
        page_count = _page_count(path, password)
        numbers: Iterable[int | None] = (None,) if page_count is None else range(1, page_count + 1)
        listed += [ImageFile(path, number, password) for number in numbers]
    return listed


def _page_count(path: Path, password: str | None) -> int | None:
    """Count the pages of a document; None of an image, and 1 of a document that can't be opened."""
    try:
        if not is_document(path.read_bytes()):
            return None
    except OSError:
        return None
    try:
        return _opened(path, path.stat().st_mtime_ns, password).page_count
    except (ImageError, MissingDependencyError):
        return 1


@lru_cache(maxsize=4)
def _opened(path: Path, _modified_ns: int, password: str | None) -> OpenedDocument:
    """Open a document, once for its pages, which are asked for in a row."""
    return open_document(replace(document_from_any(path), password=password))


def absolute(path: str | Path) -> Path:
    """Make a path absolute; `~` is the home directory, and symbolic links are not resolved."""
    return Path(path).expanduser().absolute()


def find_images(paths: Paths, *, exclude: Path | None = None, documents: bool = False) -> ImageFiles:
    """Find images, and documents if they are wanted; folders are searched recursively, without hidden entries (`.git`, `.ipynb_checkpoints`).

    A file that is given by name, or has the suffix of an image that could be read (not `.svg`), counts as an image whatever it holds: captioning it fails,
    and that is reported.

    Args:
        paths: Files and folders.
        exclude: A file to leave out.
        documents: Whether PDFs count, too.

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
                (images if is_image_file(file, documents=documents) else skipped)[file] = None
    return ImageFiles(list(images), [file for file in skipped if file not in images])


def _files_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def is_image_file(file: Path, *, documents: bool = True) -> bool:
    """Tell by its first bytes or its suffix whether a file is to be captioned; one that can't be read is, and reading it tells why."""
    try:
        with file.open("rb") as opened:
            head = opened.read(_NUM_HEADER_BYTES)
    except OSError:
        return True  # reading it later will report why that fails
    try:
        sniff_media_type(head)
    except ImageError:
        by_suffix = mimetypes.guess_type(file.name)[0] or ""
        if documents and (is_pdf(head) or by_suffix == "application/pdf"):
            return True
        return by_suffix.startswith("image/") and by_suffix != "image/svg+xml"
    return True

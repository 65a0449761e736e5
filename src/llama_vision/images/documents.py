"""Pages of a PDF or a TIFF as images, at the resolution that the model sees."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from threading import Lock
from typing import IO, TYPE_CHECKING, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from llama_vision.core.errors import DocumentError, ImageError
from llama_vision.core.messages import Document, Image
from llama_vision.images.decode import decode
from llama_vision.images.encode import encode, is_graphic
from llama_vision.images.fetch_policy import FetchPolicy, redact_url
from llama_vision.images.media_type import sniff_media_type
from llama_vision.images.page_range import select_pages
from llama_vision.images.pdf import RENDERER, PdfFile, is_pdf
from llama_vision.images.read import read_path, read_source
from llama_vision.images.settings import DOCUMENT_MAX_PAGES
from llama_vision.images.sources import (
    ImageSource,
    bytes_from_data_url,
    image_from_any,
    image_from_url,
    path_of_file_url,
)
from llama_vision.images.tiff_pages import tiff_page, tiff_page_offsets
from llama_vision.images.tiling import target_size

if TYPE_CHECKING:
    import PIL.Image

DocumentSource: TypeAlias = "Document | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
"""What `pages` takes: a path, a file's bytes, an open file, an http(s) or data URL, or a `Document`."""

MAX_BYTES = 200_000_000
"""A larger document is refused."""

_QUALITY = 85
_CACHE_PAGES = 40
_MAX_NAME_CHARS = 100
_Key: TypeAlias = tuple[str, str | None, int, bool]  # digest of the file, password, page, lossless
_DEFAULT_POLICY = FetchPolicy()


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a document.

    Attributes:
        image: The page, at the size the model sees: an A4 page has 791 x 1120 pixels.
        text: Its text layer, such as a PDF has unless it is a scan; else empty.
        number: From 1.
        page_count: Of the whole document.
        width: In points (1/72 inch); of a TIFF, in pixels.
        height: The same.
        source: The file's path or URL, or None where only bytes were given.
        digest: SHA-256 of the pixels: of two equal pages it is the same, whatever their files.
    """

    image: Image
    text: str
    number: int
    page_count: int
    width: float
    height: float
    source: str | None
    digest: str

    @property
    def label(self) -> str:
        """The page as a citation, such as `report.pdf, page 2 of 5`."""
        return f"{display_name(self.source)}, page {self.number} of {self.page_count}"


def pages(
    source: DocumentSource,
    pages: str | int | Iterable[int] | None = None,
    *,
    password: str | None = None,
    max_pages: int | None = DOCUMENT_MAX_PAGES,
    lossless: bool = True,
    fetch: FetchPolicy = _DEFAULT_POLICY,
) -> list[Page]:
    """Render pages of a PDF, or decode those of a TIFF.

    PDFs need `llama-vision[pdf]`. They are rendered in a process of its own, so that a hostile file can take neither this
    one nor its memory.

    Args:
        source: The document. A string that is no http(s) or data URL is a path, and read: never pass untrusted text.
        pages: Which ones, from 1: `"2-4"`, `"1,3"`, `"5-"`, `3`, `[1, 3]`; None for all.
        password: That of an encrypted PDF.
        max_pages: How many may be asked for; None for no limit.
        lossless: False encodes pages that look like photographs, as scans do, as JPEG, and not as PNG.
        fetch: What may be downloaded.

    Returns:
        The pages, in the order asked for.

    Raises:
        DocumentError: It is no document, is damaged or encrypted, or has not these pages.
        ImageError: It can't be read or downloaded.
        MissingDependencyError: pypdfium2 is not installed.
    """
    document = document_from_any(source)
    chosen = pages if pages is None or isinstance(pages, str) else _numbers(pages)
    document = replace(
        document,
        pages=document.pages if chosen is None else chosen,
        password=document.password if password is None else password,
    )
    return list(iter_pages(document, max_pages=max_pages, lossless=lossless, fetch=fetch))


def _numbers(pages: int | Iterable[int]) -> str:
    numbers = [pages] if isinstance(pages, int) else list(pages)
    if any(number < 1 for number in numbers):
        raise DocumentError(f"pages={pages!r}: pages are numbered from 1.")
    return ",".join(map(str, numbers))


def iter_pages(
    document: Document,
    *,
    max_pages: int | None = DOCUMENT_MAX_PAGES,
    lossless: bool = True,
    fetch: FetchPolicy = _DEFAULT_POLICY,
) -> Iterator[Page]:
    """Render the pages of a document one after the other. See `pages`."""
    opened = open_document(document, fetch=fetch)
    name = display_name(opened.source)
    for number in select_pages(document.pages, opened.page_count, name=name, max_pages=max_pages):
        yield opened.page(number, lossless=lossless)


@dataclass(frozen=True, slots=True)
class OpenedDocument:
    """A document whose pages are counted.

    Attributes:
        data: The file.
        digest: SHA-256 of it.
        source: Its path or URL, if known.
        password: That of an encrypted PDF.
        page_count: How many pages it has.
    """

    data: bytes = field(repr=False)
    digest: str
    source: str | None
    password: str | None = field(repr=False)
    page_count: int

    def page(self, number: int, *, lossless: bool = True) -> Page:
        """Render a page, by its number from 1; the last ones are kept.

        Raises:
            DocumentError: It can't be rendered.
        """
        key = self.digest, self.password, number, lossless
        if (kept := _CACHE.get(key)) is None:
            kept = self._make_page(number, lossless)
            _CACHE.put(key, kept)
        return replace(kept, source=self.source)

    def _make_page(self, number: int, lossless: bool) -> Page:
        import PIL.Image  # noqa: PLC0415 - loaded late

        name = display_name(self.source)
        if is_pdf(self.data):
            rendered = RENDERER.render(PdfFile(self.data, self.digest, self.password, name), number)
            pixels = PIL.Image.frombytes("RGB", rendered.size, rendered.pixels)
            return self._page(pixels, number, rendered.points, rendered.text, lossless)
        offset = tiff_page_offsets(self.data)[number - 1]
        full: list[tuple[int, int]] = []

        def choose_size(width: int, height: int) -> tuple[int, int]:
            full.append((width, height))
            return target_size(width, height)

        try:
            decoded = decode(tiff_page(self.data, offset), choose_size)
        except ImageError as error:
            raise DocumentError(f"{name}, page {number}: {error}") from error
        return self._page(decoded.image, number, full[-1], "", lossless)

    def _page(
        self, pixels: "PIL.Image.Image", number: int, size: tuple[float, float], text: str, lossless: bool
    ) -> Page:
        media_type = "image/png" if lossless or is_graphic(pixels) else "image/jpeg"
        data, _ = encode(pixels, (media_type,), _QUALITY, None)
        digest = hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()
        image = Image(data=data, media_type=media_type)
        return Page(image, text, number, self.page_count, *size, None, digest)


def open_document(document: Document, *, fetch: FetchPolicy = _DEFAULT_POLICY) -> OpenedDocument:
    """Download a document where it is given by its URL, and count its pages.

    Raises:
        DocumentError: It is no document, is damaged or encrypted.
        ImageError: It can't be downloaded.
        MissingDependencyError: pypdfium2 is not installed.
    """
    data = document.data
    if data is None:
        from llama_vision.images import download  # noqa: PLC0415 - loads httpx and asyncio

        url = cast("str", document.url)
        data = download.run_in_thread(lambda: download.download(url, fetch))
    source = document.name or (redact_url(document.url).strip("'") if document.url else None)
    name = display_name(source)
    if len(data) > MAX_BYTES:
        raise DocumentError(f"{name} has {len(data)} bytes, more than {MAX_BYTES}. Split it.")
    digest = hashlib.sha256(data).hexdigest()
    if _is_image(data):
        count = len(tiff_page_offsets(data))
        if not count:
            raise DocumentError(f"{name} is an image, not a document: pass it as an image.")
    elif is_pdf(data):
        count = RENDERER.page_count(PdfFile(data, digest, document.password, name))
    else:
        # Of a file nothing is quoted: it may hold a secret, and whoever chose the path may read the error.
        begin = "" if document.name else f": it begins with {bytes(data[:8])!r}"
        raise DocumentError(f"{name} is neither a PDF nor a TIFF{begin}.")
    return OpenedDocument(data, digest, source, document.password, count)


def document_from_any(source: DocumentSource) -> Document:
    """Make a document of any supported source. Nothing is downloaded; a path is read.

    Raises:
        DocumentError: It can't be a document.
        ImageError: It can't be read.
    """
    if isinstance(source, Document):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Document(data=bytes(source))
    if isinstance(source, str):
        if source.lower().startswith(("http://", "https://")):
            return Document(url=source)
        if (data := bytes_from_data_url(source)) is not None:
            return Document(data=data)
        source = path_of_file_url(source) if source[:7].lower() == "file://" else source
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        return Document(data=read_path(path), name=path)
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return Document(data=read_source(source), name=name if isinstance(name, str) else None)
    raise DocumentError(
        f"A {type(source).__name__} is not a document. Give a path, bytes, an open file or a URL."
    )


def image_or_document(source: "ImageSource | DocumentSource") -> Image | Document:
    """Make an image, or a document of what is shown page by page, of any source of either.

    Nothing is downloaded: a URL is a document's if its path ends in `.pdf`.

    Raises:
        ImageError: It is neither, or can't be read.
    """
    if isinstance(source, (Document, Image)):
        return source
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        is_pdf_url = urlsplit(source).path.lower().endswith(".pdf")
        return Document(url=source) if is_pdf_url else image_from_url(source)
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read"):
        document = document_from_any(cast("DocumentSource", source))
        if is_document(data := cast("bytes", document.data)):
            return document
        try:
            return Image(data=data, media_type=sniff_media_type(data, quote=document.name is None))
        except ImageError as error:
            raise ImageError(f"{document.name}: {error}" if document.name else str(error)) from error
    return image_from_any(source)


def display_name(source: str | None) -> str:
    """The last part of a path or URL, as it is written beside a page; `document` where there is none."""
    path = urlsplit(source).path if source and "://" in source else source or ""
    name = unquote(PurePosixPath(path.replace("\\", "/")).name) if path else ""
    return " ".join(name.split())[:_MAX_NAME_CHARS] or "document"


class _PageCache:
    """The last pages rendered: a conversation shows the same ones again with every turn. Safe for threads."""

    def __init__(self) -> None:
        self._pages: OrderedDict[_Key, Page] = OrderedDict()
        self._lock = Lock()

    def get(self, key: "_Key") -> Page | None:
        with self._lock:
            if (page := self._pages.get(key)) is not None:
                self._pages.move_to_end(key)
            return page

    def put(self, key: "_Key", page: Page) -> None:
        with self._lock:
            self._pages[key] = page
            while len(self._pages) > _CACHE_PAGES:
                self._pages.popitem(last=False)


_CACHE = _PageCache()


def is_document(data: bytes) -> bool:
    """Tell whether a file is shown page by page: a PDF, or a TIFF of several pages."""
    return len(tiff_page_offsets(data)) > 1 if _is_image(data) else is_pdf(data)


def _is_image(data: bytes) -> bool:
    try:
        sniff_media_type(data)
    except ImageError:
        return False
    return True

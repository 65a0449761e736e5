"""PDFs and TIFFs in LlamaIndex's types: `DocumentBlock`s, and a reader that makes an `ImageDocument` of each page."""

import uuid
from pathlib import Path
from typing import Any, cast

from llama_index.core.base.llms.types import DocumentBlock
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import Document as LlamaIndexDocument
from llama_index.core.schema import ImageDocument
from typing_extensions import override

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Document, Image
from llama_vision.images.documents import DocumentSource, Page, document_from_any, is_document, pages
from llama_vision.images.media_type import sniff_media_type
from llama_vision.images.settings import DOCUMENT_MAX_PAGES
from llama_vision.images.sources import bytes_from_base64

_DEFAULT_TITLE = "input_document"  # what LlamaIndex calls a block without one
_NAMESPACE = uuid.UUID("b9a4f0c6-58c1-4d0e-9a4e-0d1b0a7f5e11")  # of our own, for ids


def to_document(block: DocumentBlock) -> Document | Image:
    """Convert a block; one that holds an image becomes an image.

    Raises:
        UnsupportedInputError: It is neither a PDF, a TIFF nor another image.
        ImageError: It can't be read.
    """
    name = block.title if block.title != _DEFAULT_TITLE else None
    if block.url and not block.data and not block.path:
        return Document(url=str(block.url), name=name)
    if not block.data and not block.path:
        raise ImageError("The DocumentBlock is empty: it has no data, path or url.")
    document = document_from_any(cast("Any", _stored(block.data) if block.data else block.path))
    data = document.data or b""
    if is_document(data):
        return Document(data=data, name=name or document.name)
    try:
        return Image(data=data, media_type=sniff_media_type(data, quote=document.name is None))
    except ImageError as error:
        raise UnsupportedInputError(
            f"A DocumentBlock of {block.document_mimetype} can't be shown to Llama 3.2 Vision. It takes PDFs, TIFFs and "
            f"other images; of another document pass the text. {error}"
        ) from error


def _stored(data: Any) -> Any:
    """Read a block's bytes: base64, except short ones that LlamaIndex took for base64 already."""
    if not isinstance(data, bytes):
        return data
    try:
        return bytes_from_base64(data)
    except ImageError:
        return data


class PageReader(BaseReader):
    """Reads each page of a PDF or a TIFF as an `ImageDocument`: the page's image, with its text layer as text.

        documents = PageReader(pages="1-3").load_data("report.pdf")
        reader = SimpleDirectoryReader("reports", file_extractor={".pdf": PageReader(), ".tiff": PageReader()})

    The metadata are `file_path`, `file_name`, `page_label` and `page_count`.

    Args:
        pages: Which ones, from 1, such as `"2-4"`, `"1,3"` or `"5-"`; None for all.
        password: That of encrypted PDFs.
        max_pages: How many of one file; more are refused. None for no limit.
    """

    def __init__(
        self,
        *,
        pages: str | None = None,
        password: str | None = None,
        max_pages: int | None = DOCUMENT_MAX_PAGES,
    ) -> None:
        self.pages = pages
        self.password = password
        self.max_pages = max_pages

    @override
    def load_data(
        self, file: DocumentSource, extra_info: dict[str, Any] | None = None, fs: Any = None
    ) -> list[LlamaIndexDocument]:
        """Read a file.

        Args:
            file: A path, a file's bytes, an open file or a URL.
            extra_info: Further metadata of each page.
            fs: The fsspec file system of the path; None for this machine's.

        Returns:
            An `ImageDocument` of each page.

        Raises:
            DocumentError: It is no document, is damaged or encrypted, or has other pages.
            ImageError: It can't be read.
            MissingDependencyError: pypdfium2 is not installed.
        """
        if fs is not None and isinstance(file, (str, Path)):
            with fs.open(str(file), "rb") as opened:
                file = Document(data=opened.read(), name=str(file))
        found = pages(file, self.pages, password=self.password, max_pages=self.max_pages)
        return [_image_document(page, extra_info or {}) for page in found]


def _image_document(page: Page, extra_info: dict[str, Any]) -> ImageDocument:
    metadata: dict[str, Any] = {"page_label": str(page.number), "page_count": page.page_count}
    if page.source is not None:
        metadata = {"file_path": page.source, "file_name": Path(page.source).name, **metadata}
    node_id = uuid.uuid5(_NAMESPACE, f"{page.source} {page.number} {page.digest}")
    return ImageDocument(
        id_=str(node_id),
        text=page.text,
        image=page.image.data,
        image_mimetype=page.image.media_type,
        metadata={**extra_info, **metadata},
    )

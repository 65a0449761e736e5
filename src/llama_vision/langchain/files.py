"""Files in a LangChain message: PDFs, TIFFs and images in the blocks of LangChain, OpenAI, Anthropic, Google and Bedrock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Document, Image
from llama_vision.images.documents import is_document
from llama_vision.images.sources import (
    bytes_from_base64,
    bytes_from_data_url,
    image_from_bytes,
    image_from_url,
)

_FILE_TYPES = frozenset({"file", "input_file", "document", "media"})
_DOCUMENT_MEDIA_TYPES = frozenset(
    {"application/pdf", "application/x-pdf", "application/octet-stream", "image/tiff", ""}
)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as a block has it: base64 text, bytes, a data URL, or an http(s) URL."""

    content: str | bytes
    is_url: bool
    media_type: str
    name: str | None


def file_part(block: Mapping[str, Any]) -> Document | Image | None:
    """Convert a block that holds a file; None of one that holds none.

    The pages of a document are chosen by `pages`, such as `"2-4"`, in the block or in its `extras`; `password` likewise.

    Raises:
        UnsupportedInputError: The file is kept by a company, or is neither an image, a PDF nor a TIFF.
        ImageError: It can't be read.
    """
    file = _find_file(block)
    if file is None:
        return None
    url = file.content if file.is_url and isinstance(file.content, str) else None
    if url is not None and url.strip().lower().startswith(("http://", "https://")):
        if file.media_type in _DOCUMENT_MEDIA_TYPES:
            return _document(block, file, url=url.strip())
        if file.media_type.startswith("image/"):
            return image_from_url(url)
        raise _unsupported(block, file)
    data = _decode(file)
    if is_document(data):
        return _document(block, file, data=data)
    try:
        return image_from_bytes(data)
    except ImageError as error:
        if file.media_type.startswith("image/"):
            raise
        raise _unsupported(block, file, str(error)) from error


def _document(
    block: Mapping[str, Any], file: _File, *, data: bytes | None = None, url: str | None = None
) -> Document:
    options = {**as_mapping(block.get("extras")), **block}
    name = file.name or options.get("filename") or options.get("title") or options.get("name")
    pages, password = options.get("pages"), options.get("password")
    return Document(
        data=data,
        url=url,
        name=None if name is None else str(name),
        pages=None if pages is None else str(pages),
        password=None if password is None else str(password),
    )


def _decode(file: _File) -> bytes:
    if isinstance(file.content, str) and (data := bytes_from_data_url(file.content)) is not None:
        return data
    try:
        return bytes_from_base64(file.content)
    except ImageError:
        if isinstance(file.content, bytes):  # Bedrock's are the file itself
            return file.content
        raise


def _unsupported(block: Mapping[str, Any], file: _File, why: str = "") -> UnsupportedInputError:
    media_type = file.media_type or "unknown media type"
    return UnsupportedInputError(
        f"A block of type {block.get('type')!r} with {media_type} can't be shown to Llama 3.2 Vision. It takes PDFs, "
        "TIFFs and other images; of another document pass the text, of a video images of its frames."
        f"{why and ' '}{why}"
    )


def _find_file(block: Mapping[str, Any]) -> _File | None:
    """Find the file in any spelling; of a document that is text or blocks, None."""
    if block.get("type") not in _FILE_TYPES and "document" not in block:
        return None
    nested = as_mapping(block.get("file")) or as_mapping(block.get("document")) or block
    source = as_mapping(nested.get("source"))
    spec = source or nested
    if source.get("type") in ("text", "content"):  # Anthropic's documents without a file
        return None
    name = nested.get("filename") or nested.get("title") or nested.get("name")
    media_type = str(spec.get("mime_type") or spec.get("media_type") or _bedrock_media_type(nested)).lower()
    media_type = media_type.partition(";")[0].strip()
    for key in ("base64", "data", "file_data", "bytes", "url", "file_url", "file_uri"):
        if isinstance(content := spec.get(key), (str, bytes)) and content:
            is_url = key.endswith("url") or (isinstance(content, str) and "://" in content[:8])
            return _File(content, is_url, media_type, str(name) if name else None)
    if spec.get("file_id") or spec.get("source_type") == "id":
        raise UnsupportedInputError(
            "A file_id belongs to the company that keeps the file; no provider here has one. "
            "Pass the file as base64 or by its URL."
        )
    return None


def _bedrock_media_type(nested: Mapping[str, Any]) -> str:
    return f"application/{nested['format']}" if isinstance(nested.get("format"), str) else ""

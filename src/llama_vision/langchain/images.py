"""`image_block` and `human`: images and documents from files and memory, as LangChain's content blocks."""

import base64
from dataclasses import replace
from typing import Any, TypeAlias

from langchain_core.messages import HumanMessage

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Document, Image
from llama_vision.images import DocumentSource, ImageSource, Page
from llama_vision.images.documents import display_name, image_or_document
from llama_vision.images.pdf import is_pdf

ImageLike: TypeAlias = "ImageSource | DocumentSource | Page"
"""A path, URL, bytes, an open file, a PIL image, a figure of matplotlib, an array, a `Page`, a `Document`."""


def image_block(
    source: ImageLike, *, pages: str | None = None, password: str | None = None
) -> dict[str, Any]:
    """Make a content block of an image, or of a PDF or TIFF.

        HumanMessage([image_block("cat.png"), {"type": "text", "text": "What is it?"}])

    Args:
        source: A path, an http(s) or data URL, bytes, an open file, a PIL image, a figure of matplotlib, an array, a `Page` or a `Document`.
            A string that is no URL is a path, and read: never pass untrusted text.
        pages: Of a document, which pages, from 1, such as `"2-4"`; None for all.
        password: That of an encrypted PDF.

    Returns:
        A block of LangChain's own type `image` or `file`, with the file in base64 or its URL; any chat model with vision takes it.

    Raises:
        ImageError: It can't be read, or is neither.
        UnsupportedInputError: `pages` or `password` are given, and it is no document.
    """
    found = _read(source)
    if pages is not None or password is not None:
        if not isinstance(found, Document):
            raise UnsupportedInputError(
                "`pages` and `password` are for PDFs and TIFFs of several pages, and this is an image."
            )
        found = replace(found, pages=pages or found.pages, password=password or found.password)
    return _block(found)


def human(
    text: str, *images: ImageLike, pages: str | None = None, password: str | None = None
) -> HumanMessage:
    """Make a user's message of a question and images.

        model.invoke([human("How many circles are there?", "shapes.png")])

    Args:
        text: The question.
        *images: As `image_block` takes them. They come before the text: Llama's text can't attend to an image behind it.
        pages: Of a document, which pages.
        password: That of an encrypted PDF.

    Returns:
        The message.

    Raises:
        ImageError: An image can't be read.
        UnsupportedInputError: `pages` or `password` are given, and there is no document.
    """
    found = [_read(source) for source in images]
    if pages is not None or password is not None:
        if not any(isinstance(one, Document) for one in found):
            raise UnsupportedInputError(
                "`pages` and `password` are for PDFs and TIFFs of several pages, and there is none."
            )
        found = [
            replace(one, pages=pages or one.pages, password=password or one.password)
            if isinstance(one, Document)
            else one
            for one in found
        ]
    return HumanMessage([*map(_block, found), {"type": "text", "text": text}])


def _read(source: ImageLike) -> Image | Document:
    if isinstance(source, Page):
        return source.image
    return image_or_document(source)


def _block(found: Image | Document) -> dict[str, Any]:
    """Make a block without the random id that LangChain's own functions give one: caches of replies go by the messages."""
    if found.url is not None:
        place = {"url": found.url}
    else:
        place = {"base64": base64.b64encode(found.data or b"").decode()}
    if isinstance(found, Image):
        return {"type": "image", **place} | ({"mime_type": found.media_type} if found.data else {})
    is_tiff = found.data is not None and not is_pdf(found.data)
    details = {
        "mime_type": "image/tiff" if is_tiff else "application/pdf",
        "filename": display_name(found.name or found.url),
        "pages": found.pages,
        "password": found.password,
    }
    return {"type": "file", **place} | {key: value for key, value in details.items() if value is not None}

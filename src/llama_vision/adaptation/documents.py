"""Replaces the documents of a request by images of their pages, and their text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Document, Image, Message, Part, Text, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.images.documents import Page, iter_pages
from llama_vision.images.settings import ImageSettings
from llama_vision.images.tiff_pages import tiff_page_offsets

CHOOSE_PAGES = "Of a document choose a page, such as pages='1'."
"""What to do where pages are more images than a provider takes."""

_PLACEHOLDER = Image(data=b"", media_type="image/png")
_AnyPart = TypeVar("_AnyPart", bound=Part)


def has_documents(request: ChatRequest) -> bool:
    """Tell whether a request holds documents; an image that is a TIFF of several pages is one, too."""
    return any(
        _as_document(part) is not None for message in request.messages for part in _all_parts(message.parts)
    )


def outline_documents(request: ChatRequest) -> ChatRequest:
    """Replace each document by one empty image, so that what can be refused without its pages is refused."""
    return _replace_documents(request, lambda _: ([_PLACEHOLDER], ""))


def load_documents(request: ChatRequest, settings: ImageSettings, *, lossless: bool) -> ChatRequest:
    """Replace each document by the images of its pages; what they are, and their text, follows.

    The images of a message stay side by side, since text attends to the image before it, and to those just before that.

    Raises:
        DocumentError: A document is damaged or encrypted, or has too many pages.
        ImageError: It can't be downloaded.
        MissingDependencyError: pypdfium2 is not installed.
    """

    def load(document: Document) -> tuple[list[Image], str]:
        pages = list(
            iter_pages(
                document, max_pages=settings.document_max_pages, lossless=lossless, fetch=settings.fetch
            )
        )
        return [page.image for page in pages], "\n\n".join(_describe(page, settings) for page in pages)

    return _replace_documents(request, load)


def _describe(page: Page, settings: ImageSettings) -> str:
    text = page.text if settings.document_text else ""
    return f"{page.label}:\n{text}" if text else page.label


def _as_document(part: Part) -> Document | None:
    if isinstance(part, Image) and part.data is not None and len(tiff_page_offsets(part.data)) > 1:
        return Document(data=part.data)
    return part if isinstance(part, Document) else None


def _all_parts(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, ToolResult):
            yield from part.parts
        else:
            yield part


def _replace_documents(
    request: ChatRequest, load: Callable[[Document], tuple[list[Image], str]]
) -> ChatRequest:
    messages: list[Message] = []
    for position, message in enumerate(request.messages):
        try:
            parts = _replace_in_parts(message.parts, load)
        except ImageError as error:
            raise type(error)(f"Message {position} ({message.role}): {error}") from error
        messages.append(replace(message, parts=tuple(parts)))
    return replace(request, messages=tuple(messages))


def _replace_in_parts(
    parts: Sequence[_AnyPart], load: Callable[[Document], tuple[list[Image], str]]
) -> list[_AnyPart | Image | Text]:
    replaced: list[_AnyPart | Image | Text] = []
    texts: list[str] = []

    def end_of_images() -> None:
        if any(texts):
            replaced.append(Text("\n\n".join(filter(None, texts))))
        texts.clear()

    for part in parts:
        if (document := _as_document(part)) is not None:
            images, text = load(document)
            replaced += images
            texts.append(text)
        elif isinstance(part, Image):
            replaced.append(part)
        else:
            end_of_images()
            is_result = isinstance(part, ToolResult)
            replaced.append(
                replace(part, parts=tuple(_replace_in_parts(part.parts, load))) if is_result else part
            )
    end_of_images()
    return replaced

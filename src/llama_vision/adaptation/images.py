"""Prepares the images of a request for its provider: not too many, fetched, scaled and encoded."""

import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import assert_never

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Document, Image, Message, Part, Text, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.contact_sheet import check_sheet_count, contact_sheet
from llama_vision.images.fetch import afetch_images, fetch_images
from llama_vision.images.prepare import aprepare_images, prepare_image, prepare_images, run_in_pool
from llama_vision.images.settings import ImageSettings
from llama_vision.images.tiff_pages import tiff_page_offsets
from llama_vision.providers.provider import Provider

_TOOLS_WITH_IMAGES_WARNING = (
    "Tools are offered beside an image. Meta says of Llama 3.2 Vision: 'Tool Calling does NOT work with images in the "
    "prompt as of now.' Ask about the image first, and offer the tools with the answer. This is said once."
)
_warned: set[str] = set()
_INNER_PACKAGES = sys.stdlib_module_names - {"__main__"} | {
    *(
        "llama_vision",
        "langchain_core",
        "langchain",
        "langgraph",
        "llama_index",
        "llama_index_instrumentation",
    ),
    *("wrapt", "tenacity", "pydantic"),
}


def warn_of_tools_beside_images(request: ChatRequest) -> None:
    """Warn, once for each process, where a request with images offers tools."""
    if request.tools and "tools" not in _warned:
        _warned.add("tools")
        warnings.warn(_TOOLS_WITH_IMAGES_WARNING, stacklevel=_callers_level())


def _callers_level() -> int:
    """Return the `stacklevel` of the user's line: the first that is neither ours nor the frameworks' nor Python's."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as `warnings` does
    while (
        frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER_PACKAGES
    ):
        level, frame = level + 1, frame.f_back
    return level


def image_locations(request: ChatRequest) -> Iterator[str]:
    """Say of each image which one it is and where, such as `Image 2, of message 0 (user)`."""
    number = 0
    for position, message in enumerate(request.messages):
        for _ in message.images():
            number += 1
            yield f"Image {number}, of message {position} ({message.role})"


def exceeds_image_limit(provider: Provider, request: ChatRequest) -> bool:
    """Tell whether there are more images than the provider takes, in the request or in one of its messages."""
    limit = provider.image_rules.max_count
    return limit is not None and any(
        len(_images(group)) > limit for group in _limited_groups(provider, request)
    )


def _limited_groups(provider: Provider, request: ChatRequest) -> list[list[Message]]:
    """Group the messages whose images are counted together: all, or each alone; tool results in a row become one message."""
    if not provider.image_rules.count_per_message:
        return [list(request.messages)]
    groups: list[list[Message]] = []
    for is_tool, neighbours in groupby(request.messages, key=lambda message: message.role == "tool"):
        group = list(neighbours)
        groups += [group] if is_tool else [[message] for message in group]
    return groups


def _images(messages: Sequence[Message]) -> list[Image]:
    return [image for message in messages for image in message.images()]


def limit_images(
    provider: Provider, request: ChatRequest, settings: ImageSettings, *, advice: str = ""
) -> ChatRequest:
    """Apply the overflow policy, as far as possible without looking at the images.

    `advice` ends the error's text.

    Raises:
        UnsupportedInputError: There are too many, and the policy is `error`.
        ImageError: There are too many for a contact sheet.
    """
    if not exceeds_image_limit(provider, request):
        return request
    groups, max_count = _limited_groups(provider, request), provider.image_rules.max_count
    match settings.on_too_many:
        case "first":
            kept: list[Message] = []
            for group in groups:
                remaining = iter([(image,) for image in _images(group)[:max_count]])
                kept += [_replace_in_message(message, remaining) for message in group]
            return replace(request, messages=tuple(kept))
        case "grid":
            check_sheet_count(len(request.images()))
            return request
        case "error":
            per_message = provider.image_rules.count_per_message
            unit = "message" if per_message else "request"
            raise UnsupportedInputError(
                f"There are {max(len(_images(group)) for group in groups)} images, and {provider.title} takes {max_count} in "
                f"one {unit}. Ask about each in a {unit} of its own"
                f"{'.' if per_message else '; images of earlier turns count too.'}"
                " Or put all on one sheet: image_policy='grid'. Of a query engine: similarity_top_k=1."
                f"{advice and ' '}{advice}"
            )
        case _:
            assert_never(settings.on_too_many)


def load_images(
    provider: Provider,
    images: Sequence[Image],
    locations: Sequence[str],
    settings: ImageSettings,
    *,
    on_sheet: bool,
) -> list[Image]:
    """Fetch and prepare images: as many, or `on_sheet` one contact sheet of all.

    Raises:
        ImageError: An image can't be fetched or decoded; the text says which one of which message.
    """
    constraints = provider.image_rules
    with _located(locations):
        if on_sheet or not constraints.accepts_urls:
            images = _check_single_page(images, fetch_images(images, settings.fetch))
        if on_sheet:
            return [_prepare_sheet(images, constraints, settings)]
        return prepare_images(images, constraints, settings.encoding)


async def aload_images(
    provider: Provider,
    images: Sequence[Image],
    locations: Sequence[str],
    settings: ImageSettings,
    *,
    on_sheet: bool,
) -> list[Image]:
    """As `load_images`: fetched on the event loop, and prepared in threads that only do that."""
    constraints = provider.image_rules
    with _located(locations):
        if on_sheet or not constraints.accepts_urls:
            images = _check_single_page(images, await afetch_images(images, settings.fetch))
        if on_sheet:
            return [await run_in_pool(partial(_prepare_sheet, images, constraints, settings))]
        return await aprepare_images(images, constraints, settings.encoding)


def _check_single_page(images: Sequence[Image], fetched: Sequence[Image]) -> Sequence[Image]:
    """Refuse a TIFF of several pages behind the URL of an image: too late to show them all."""
    for number, (image, loaded) in enumerate(zip(images, fetched, strict=True), start=1):
        if image.data is None and (pages := len(tiff_page_offsets(loaded.data or b""))) > 1:
            raise ImageError.numbered(
                number, f"It is a TIFF of {pages} pages. Pass its address as a document."
            )
    return fetched


def _prepare_sheet(images: Sequence[Image], constraints: ImageConstraints, settings: ImageSettings) -> Image:
    sheet = contact_sheet(images, lossless=constraints.decoded_by_backend)
    return prepare_image(sheet, constraints, settings.encoding)


@contextmanager
def _located(locations: Sequence[str]) -> Generator[None]:
    try:
        yield
    except ImageError as error:
        locate(error, locations)
        raise


def locate(error: ImageError, locations: Sequence[str]) -> None:
    """Add to an error whose text begins with an image's number where that image stands."""
    if error.number is not None:
        text = str(error.args[0]).removeprefix(f"Image {error.number}")
        error.args = (locations[error.number - 1] + text,)
        error.number = None


def replace_images(request: ChatRequest, images: Sequence[Image], *, sheet_of: int = 0) -> ChatRequest:
    """Replace the images of a request, in order; those beyond the given ones are removed.

    With `sheet_of`, the only image is a contact sheet of so many, and a text behind it says so.
    """
    note = f"(The image is a sheet of the {sheet_of} images of this conversation, numbered in order.)"
    remaining = iter([(image, Text(note)) if sheet_of else (image,) for image in images])
    messages = tuple(_replace_in_message(message, remaining) for message in request.messages)
    return replace(request, messages=messages)


def _replace_in_message(message: Message, remaining: Iterator[tuple[Image | Text, ...]]) -> Message:
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Image):
            parts += next(remaining, ())
        elif isinstance(part, ToolResult):
            inner: list[Text | Image | Document] = []
            for each in part.parts:
                inner += next(remaining, ()) if isinstance(each, Image) else (each,)
            parts.append(replace(part, parts=tuple(inner)))
        else:
            parts.append(part)
    return replace(message, parts=tuple(parts))

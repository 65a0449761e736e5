"""Prepares the images of a request for its provider: not too many, fetched, scaled and encoded."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import assert_never

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Image, Message, Part, Text, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.images.contact_sheet import check_sheet_count, contact_sheet
from llama_vision.images.fetch import fetch_image
from llama_vision.images.prepare import prepare_image, prepare_images
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.provider import Provider

_TOOLS_WITH_IMAGES_WARNING = (
    "Tools are offered beside an image. Meta says of Llama 3.2 Vision: 'Tool Calling does NOT work with images in the "
    "prompt as of now.' Ask about the image first, and offer the tools with the answer. This is said once."
)
_warned: set[str] = set()


def warn_of_tools_beside_images(request: ChatRequest) -> None:
    """Warn, once for each process, where a request with images offers tools."""
    if request.tools and "tools" not in _warned:
        _warned.add("tools")
        warnings.warn(_TOOLS_WITH_IMAGES_WARNING, stacklevel=2)


def image_locations(request: ChatRequest) -> Iterator[str]:
    """Say of each image which one it is and where, such as `Image 2, of message 0 (user)`."""
    number = 0
    for position, message in enumerate(request.messages):
        for _ in message.images():
            number += 1
            yield f"Image {number}, of message {position} ({message.role})"


def limit_images(provider: Provider, request: ChatRequest, settings: ImageSettings) -> ChatRequest:
    """Apply the overflow policy, as far as possible without looking at the images.

    Raises:
        UnsupportedInputError: There are too many, and the policy is `error`.
        ImageError: There are too many for a contact sheet.
    """
    images, max_count = request.images(), provider.image_rules.max_count
    if max_count is None or len(images) <= max_count:
        return request
    match settings.on_too_many:
        case "first":
            return replace_images(request, images[:max_count])
        case "grid":
            check_sheet_count(len(images))
            return request
        case "error":
            raise UnsupportedInputError(
                f"There are {len(images)} images, and {provider.title} takes {max_count} in one request. "
                "Ask about each in a request of its own; images of earlier turns count too."
            )
        case _:
            assert_never(settings.on_too_many)


def load_images(
    provider: Provider, images: Sequence[Image], locations: Sequence[str], settings: ImageSettings
) -> list[Image]:
    """Fetch and prepare images: as many, or one contact sheet where there are more than the provider accepts.

    Raises:
        ImageError: An image can't be fetched or decoded; the text says which one of which message.
    """
    constraints = provider.image_rules
    on_sheet = constraints.max_count is not None and len(images) > constraints.max_count
    try:
        if on_sheet or not constraints.accepts_urls:
            images = _fetch_images(images, settings)
        if not on_sheet:
            return prepare_images(images, constraints, settings.encoding)
        sheet = contact_sheet(images, lossless=constraints.decoded_by_backend)
        return [prepare_image(sheet, constraints, settings.encoding)]
    except ImageError as error:
        locate(error, locations)
        raise


def locate(error: ImageError, locations: Sequence[str]) -> None:
    """Add to an error whose text begins with an image's number where that image stands."""
    if error.number is not None:
        text = str(error.args[0]).removeprefix(f"Image {error.number}")
        error.args = (locations[error.number - 1] + text,)
        error.number = None


def _fetch_images(images: Sequence[Image], settings: ImageSettings) -> list[Image]:
    fetched: list[Image] = []
    for number, image in enumerate(images, start=1):
        try:
            fetched.append(fetch_image(image, settings.fetch))
        except ImageError as error:
            raise ImageError.numbered(number, error) from error
    return fetched


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
            inner: list[Text | Image] = []
            for each in part.parts:
                inner += next(remaining, ()) if isinstance(each, Image) else (each,)
            parts.append(replace(part, parts=tuple(inner)))
        else:
            parts.append(part)
    return replace(message, parts=tuple(parts))

"""Makes the images of a request ready for a provider: fetched, upright, small, rightly encoded, and not too many."""

import asyncio
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image, Message, Part, Text, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.contact_sheet import contact_sheet
from llama_vision.images.fetch import fetch_image
from llama_vision.images.prepare import prepare_image, prepare_images
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.provider import Provider

_TOOLS_WITH_IMAGES_WARNING = (
    "Tools are offered beside an image. Meta says of Llama 3.2 Vision: 'Tool Calling does NOT work with images in the "
    "prompt as of now.' Ask about the image first, and offer the tools with the answer. This is said once."
)
_warned: set[str] = set()


def prepare_request_images(provider: Provider, request: ChatRequest, settings: ImageSettings) -> ChatRequest:
    """Make the images of a request ready.

    Args:
        provider: Whose rules.
        request: As the user made it; it is not changed.
        settings: The user's wishes.

    Returns:
        The same request with other images; the request itself where there are none.

    Raises:
        ImageError: An image can't be fetched or read; the text says which one of which message.

    """
    images = request.images()
    rules = provider.image_rules
    if not images or rules.max_count == 0:  # which the checks refuse
        return request
    if request.tools and "tools" not in _warned:
        _warned.add("tools")
        warnings.warn(_TOOLS_WITH_IMAGES_WARNING, stacklevel=2)
    places = list(_image_locations(request))
    too_many = rules.max_count is not None and len(images) > rules.max_count
    if too_many and settings.on_too_many == "grid":
        return _replace_images(
            request,
            [_contact_sheet(places, images, rules, settings), *[None] * (len(images) - 1)],
            len(images),
        )
    kept = images[: rules.max_count] if too_many and settings.on_too_many == "first" else images
    ready = _prepare_images(
        places, _fetch_images(places, kept, settings, always=not rules.accepts_urls), rules, settings
    )
    return _replace_images(request, [*ready, *[None] * (len(images) - len(kept))])


async def aprepare_request_images(
    provider: Provider, request: ChatRequest, settings: ImageSettings
) -> ChatRequest:
    """As `prepare_request_images`, in a thread: decoding and scaling would hold the event loop up."""
    if not request.images():
        return request
    return await asyncio.to_thread(prepare_request_images, provider, request, settings)


def _image_locations(request: ChatRequest) -> Iterator[str]:
    """Say of each image where it stands."""
    for position, message in enumerate(request.messages):
        for part in message.parts:
            inner = part.parts if isinstance(part, ToolResult) else (part,)
            yield from (
                f"of message {position} ({message.role})" for each in inner if isinstance(each, Image)
            )


def _fetch_images(
    places: Sequence[str], images: Sequence[Image], settings: ImageSettings, *, always: bool
) -> list[Image]:
    if not always:
        return list(images)
    fetched: list[Image] = []
    for number, image in enumerate(images, start=1):
        try:
            fetched.append(fetch_image(image, settings.fetch))
        except ImageError as error:
            raise _located(error, number, places) from error
    return fetched


def _prepare_images(
    places: Sequence[str], images: Sequence[Image], rules: ImageConstraints, settings: ImageSettings
) -> list[Image]:
    try:
        return prepare_images(images, rules, settings.options)
    except ImageError:
        for number, image in enumerate(images, start=1):
            try:
                prepare_image(image, rules, settings.options)
            except ImageError as error:
                raise _located(error, number, places) from error
        raise


def _located(error: ImageError, number: int, places: Sequence[str]) -> ImageError:
    return ImageError(f"Image {number}, {places[number - 1]}: {error}")


def _contact_sheet(
    places: Sequence[str], images: Sequence[Image], rules: ImageConstraints, settings: ImageSettings
) -> Image:
    fetched = _fetch_images(places, images, settings, always=True)
    sheet = contact_sheet(_prepare_images(places, fetched, rules, settings))
    return prepare_image(sheet, rules, settings.options)


def _replace_images(
    request: ChatRequest, ready: Sequence[Image | None], num_on_sheet: int = 0
) -> ChatRequest:
    """Put the images in their places, in order; None takes one out."""
    left = iter(ready)
    messages = tuple(_replace_in_message(message, left, num_on_sheet) for message in request.messages)
    return replace(request, messages=messages)


def _replace_in_message(message: Message, left: Iterator[Image | None], on_sheet: int) -> Message:
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Image):
            parts += _replacement_parts(next(left), on_sheet)
        elif isinstance(part, ToolResult):
            inner: list[Text | Image] = []
            for each in part.parts:
                inner += _replacement_parts(next(left), on_sheet) if isinstance(each, Image) else [each]
            parts.append(replace(part, parts=tuple(inner)))
        else:
            parts.append(part)
    return replace(message, parts=tuple(parts))


def _replacement_parts(image: Image | None, on_sheet: int) -> list[Text | Image]:
    if image is None:
        return []
    if not on_sheet:
        return [image]
    return [
        image,
        Text(f"(The image is a sheet of the {on_sheet} images of this conversation, numbered in order.)"),
    ]

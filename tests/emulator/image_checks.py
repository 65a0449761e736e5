"""Opens the images that arrive, as an endpoint has to that shows them to a model."""

import base64
import binascii
import io
import warnings
from collections.abc import Mapping

import PIL.Image

JPEG_PNG_WEBP: Mapping[str, str] = {
    "image/jpeg": "JPEG",
    "image/jpg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
}
WITH_GIF: Mapping[str, str] = {**JPEG_PNG_WEBP, "image/gif": "GIF"}


class WrongImageError(Exception):
    """What is wrong with an image."""


def read_data_url(url: str, types: Mapping[str, str]) -> bytes:
    """Take the file out of a data URL.

    Args:
        url: With base64.
        types: The formats, as Pillow calls them, of the media types that are taken.

    Raises:
        WrongImageError: Where it is not what it says, or can't be opened.
    """
    head, _, data = url.partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise WrongImageError("An image is an http(s) address or a base64 data URL")
    if media_type not in types:
        names = ", ".join(sorted({name.removeprefix("image/") for name in types}))
        raise WrongImageError(f"Unsupported image type {media_type}: use {names}")
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error:
        raise WrongImageError("Invalid image data: not base64") from None
    actual = opened(content).format
    if actual != types[media_type]:
        raise WrongImageError(f"The image is {actual} and not {media_type}")
    return content


def opened(content: bytes) -> PIL.Image.Image:
    """Decode all pixels.

    Raises:
        WrongImageError: Where that does not work.
    """
    try:
        with warnings.catch_warnings():
            image = PIL.Image.open(io.BytesIO(content))
            image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise WrongImageError(f"Invalid image data: {type(error).__name__}") from None
    return image

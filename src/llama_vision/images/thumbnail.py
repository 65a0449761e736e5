"""Thumbnails: small versions of images, for people to see beside captions and answers."""

import base64
from functools import partial

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.decode import decode
from llama_vision.images.encode import encode, is_graphic
from llama_vision.images.tiling import fit_within

_QUALITY = 80


def thumbnail_url(image: Image, *, side: int = 240, max_bytes: int = 12_000) -> str:
    """Scale an image down and encode it as a data URL.

    Args:
        image: The image; never scaled up.
        side: The most pixels of its width; of its height, twice that.
        max_bytes: The most bytes as encoded, before base64.

    Returns:
        A `data:` URL of a PNG or JPEG.

    Raises:
        ImageError: It can't be decoded, or is given by its URL, and nothing is fetched for a thumbnail.
    """
    if image.data is None:
        raise ImageError(
            "It is given by its address, and nothing is fetched for showing. Download it and give its bytes."
        )
    small = decode(image.data, partial(fit_within, max_width=side, max_height=2 * side)).image
    media_types = ("image/png", "image/jpeg") if is_graphic(small) else ("image/jpeg",)
    data, media_type = encode(small, media_types, _QUALITY, max_bytes)
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"

"""Encodes pixels: JPEG for photographs, PNG for graphics and text, within a size limit."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image

if TYPE_CHECKING:
    import PIL.Image

_SAMPLE_SIDE = 64  # pixels
_MAX_COLORS, _NUM_COMMON = 512, 16
_FALLBACK_QUALITIES = (70, 50)
_FALLBACK_SCALES = (0.7, 0.5, 0.35, 0.25)
_MAX_SCALED_QUALITY = 60


def base64_length(image: Image) -> int:
    """Count the characters of an image in base64; of a URL, none."""
    return 0 if image.data is None else (len(image.data) + 2) // 3 * 4


def is_graphic(image: "PIL.Image.Image") -> bool:
    """Tell graphics and text from photographs.

    Of 64 x 64 evenly picked pixels, a graphic has at most 512 different colors, and the 16 most common ones fill at
    least half of it. A photograph of a thing on white fails the first, one in gray the second.
    """
    import PIL.Image  # noqa: PLC0415 - loaded late

    # Not averaged: that would make new colors along every edge.
    sample = image.resize((_SAMPLE_SIDE, _SAMPLE_SIDE), PIL.Image.Resampling.NEAREST)
    found = sample.getcolors(_MAX_COLORS)
    if found is None:
        return False
    counts = sorted((count for count, _ in found), reverse=True)
    return 2 * sum(counts[:_NUM_COMMON]) >= _SAMPLE_SIDE * _SAMPLE_SIDE


def encode(
    image: "PIL.Image.Image", media_types: tuple[str, ...], quality: int, max_bytes: int | None
) -> tuple[bytes, str]:
    """Encode an RGB image as the first of `media_types` (`image/jpeg`, `image/png`), to at most `max_bytes`.

    Above the limit PNG is replaced by JPEG where that is accepted too, then the quality (1 to 95) is lowered, then the
    image is scaled down, to a quarter of its sides at last: at most eight attempts.

    Raises:
        ImageError: It does not get small enough.
    """
    data = b""
    for media_type, lower_quality, scale in _encoding_attempts(media_types, quality):
        data = _encode_once(_downscale(image, scale), media_type, lower_quality)
        if max_bytes is None or len(data) <= max_bytes:
            return data, media_type
    raise ImageError(
        f"The image can't be made small enough: it still has {len(data)} bytes of at most {max_bytes}. Crop it, or "
        "use a provider with a higher limit."
    )


def _encoding_attempts(media_types: tuple[str, ...], quality: int) -> Iterator[tuple[str, int, float]]:
    for media_type in media_types:
        yield media_type, quality, 1.0
    last = media_types[-1]
    if last == "image/jpeg":
        for lower in _FALLBACK_QUALITIES:
            if lower < quality:
                yield last, lower, 1.0
    for scale in _FALLBACK_SCALES:
        yield last, min(quality, _MAX_SCALED_QUALITY), scale


def _downscale(image: "PIL.Image.Image", scale: float) -> "PIL.Image.Image":
    if scale == 1:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, PIL.Image.Resampling.HAMMING)


def _encode_once(image: "PIL.Image.Image", media_type: str, quality: int) -> bytes:
    # No metadata: EXIF data may say where the photograph was taken.
    image.info = {}
    buffer = io.BytesIO()
    if media_type == "image/jpeg":
        image.save(buffer, "JPEG", quality=quality)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()

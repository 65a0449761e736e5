"""Pixels to bytes: JPEG for photographs, PNG for drawings and text, within a limit."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llama_vision.core.errors import ImageError

if TYPE_CHECKING:
    import PIL.Image

_SAMPLE = 64  # pixels along each side
_COLOURS, _COMMON = 512, 16
_LOWER_QUALITIES = (70, 50)
_SMALLER = (0.7, 0.5, 0.35, 0.25)
_SMALLER_QUALITY = 60


def is_graphic(image: "PIL.Image.Image") -> bool:
    """Tell drawings and text from photographs.

    The rule: of 64 x 64 pixels picked evenly, a drawing has at most 512 different colours, and the 16 most common ones
    fill at least half of it. A photograph of a thing on white fails the first, one in grey the second.

    Args:
        image: In RGB.

    """
    import PIL.Image  # noqa: PLC0415 - loaded late

    # Picked, not averaged: averages would make new colours along every line.
    sample = image.resize((_SAMPLE, _SAMPLE), PIL.Image.Resampling.NEAREST)
    found = sample.getcolors(_COLOURS)
    if found is None:
        return False
    counts = sorted((count for count, _ in found), reverse=True)
    return 2 * sum(counts[:_COMMON]) >= _SAMPLE * _SAMPLE


def encode(
    image: "PIL.Image.Image", media_types: tuple[str, ...], quality: int, max_bytes: int | None
) -> tuple[bytes, str]:
    """Encode an image so that it keeps within a limit.

    Above the limit PNG gives way to JPEG where that is taken too, then the quality is lowered, then the image is
    scaled down to a quarter of its sides: at most eight tries.

    Args:
        image: In RGB.
        media_types: What may come of it, `image/jpeg` or `image/png`, the preferred one first.
        quality: Of JPEG, 1 to 95.
        max_bytes: The most bytes; None for no limit.

    Returns:
        The file and its media type.

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
        for lower in _LOWER_QUALITIES:
            if lower < quality:
                yield last, lower, 1.0
    for scale in _SMALLER:
        yield last, min(quality, _SMALLER_QUALITY), scale


def _downscale(image: "PIL.Image.Image", scale: float) -> "PIL.Image.Image":
    if scale == 1:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, PIL.Image.Resampling.HAMMING)


def _encode_once(image: "PIL.Image.Image", media_type: str, quality: int) -> bytes:
    # Nothing of the source goes along: its EXIF data may say where it was taken.
    image.info = {}
    buffer = io.BytesIO()
    if media_type == "image/jpeg":
        image.save(buffer, "JPEG", quality=quality)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()

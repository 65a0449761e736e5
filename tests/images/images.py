"""Images to prepare: a sketch whose corners differ, and noise that looks like a photograph to an encoder."""

import io

import PIL.Image
import pytest
from PIL import ImageChops, ImageFilter

from llama_vision.core.messages import Image
from llama_vision.images.media_type import sniff_media_type

CORNERS = {(0, 0): (220, 20, 60), (1, 0): (20, 160, 60), (0, 1): (30, 60, 200), (1, 1): (240, 200, 40)}


def sketch(width=90, height=60):
    """Draw four fields of different colours."""
    image = PIL.Image.new("RGB", (width, height))
    for (column, row), color in CORNERS.items():
        left, top = column * width // 2, row * height // 2
        image.paste(color, (left, top, left + (width + 1) // 2, top + (height + 1) // 2))
    return image


def photo(width=800, height=600):
    """Draw clouds in all colours, with grain."""
    coarse = (max(2, width // 40), max(2, height // 40))
    bands = [
        PIL.Image.effect_noise(coarse, 90).resize((width, height), PIL.Image.Resampling.BICUBIC)
        for _ in range(3)
    ]
    grain = PIL.Image.effect_noise((width, height), 22).filter(ImageFilter.GaussianBlur(0.7))
    return ImageChops.add(PIL.Image.merge("RGB", bands), PIL.Image.merge("RGB", [grain] * 3), 2)


PIL.Image.init()
HAS_AVIF = "AVIF" in PIL.Image.SAVE
needs_avif = pytest.mark.skipif(not HAS_AVIF, reason="this Pillow was built without AVIF")


def encoded(image, kind="PNG", **options):
    if kind == "PNG":
        options = {"compress_level": 1, **options}  # noise takes long to pack
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_image(image, kind="PNG", **options):
    data = encoded(image, kind, **options)
    return Image(data=data, media_type=sniff_media_type(data))


def opened(prepared):
    """Decode what would be sent, and check its label."""
    image = PIL.Image.open(io.BytesIO(prepared.data))
    image.load()
    assert image.get_format_mimetype() == prepared.media_type
    return image


def difference(one, other):
    """Tell the largest difference of any channel of any pixel."""
    assert one.size == other.size
    return max(
        high for _, high in ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema()
    )


def mean_difference(one, other):
    assert one.size == other.size
    histogram = ImageChops.difference(one.convert("L"), other.convert("L")).histogram()
    return sum(level * count for level, count in enumerate(histogram)) / (one.width * one.height)

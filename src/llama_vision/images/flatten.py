"""Flattens an image of any mode: RGB, composited on white, strip by strip, so that no second copy of a large one is made."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from llama_vision.images.color_profile import convert_to_srgb, srgb_transform

if TYPE_CHECKING:
    import PIL.Image

_MAX_CANVAS_BYTES = 150_000_000
_STRIP_ROWS = 64  # after reduction
_REDUCING_GAP = 2.0  # Pillow's: as good as no gap, and several times as fast
_WHITE_8_BIT, _WHITE_16_BIT = 255.0, 65535.0
_SHORT_LEVELS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies the levels of such a PNG by
_WINDOWS_BITMAPS = frozenset({"BMP", "DIB"})


def is_deep(image: "PIL.Image.Image") -> bool:
    """Tell whether its gray levels have more than 8 bits, or are real numbers."""
    return image.mode[0] in "IF"


def correct_transparency(image: "PIL.Image.Image") -> None:
    """Correct the transparent color of a PNG before it is loaded: Pillow scales the pixels to 8 bits, and not that color."""
    key = image.info.get("transparency")
    tiles: Any = getattr(image, "tile", None)
    if image.format != "PNG" or key is None or not tiles:
        return
    rawmode = tiles[0][3]
    if rawmode in _SHORT_LEVELS and isinstance(key, int):
        image.info["transparency"] = key * _SHORT_LEVELS[rawmode]
    elif rawmode == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in cast("tuple[int, ...]", key))


def has_empty_alpha(image: "PIL.Image.Image") -> bool:
    """Tell whether it is a Windows bitmap whose alpha is 0 everywhere: programs leave it unset, and Windows shows it opaque."""
    return (
        image.format in _WINDOWS_BITMAPS
        and image.mode == "RGBA"
        and image.getchannel("A").getextrema() == (0, 0)
    )


def is_transparent(image: "PIL.Image.Image") -> bool:
    """Tell whether any pixel is transparent: most screenshots have an alpha channel that is opaque everywhere."""
    if not image.has_transparency_data or has_empty_alpha(image):
        return False
    if is_deep(image):
        return True
    if image.mode in ("RGBA", "LA"):
        return image.getchannel("A").getextrema() != (255, 255)
    return any(
        strip.convert("RGBA").getchannel("A").getextrema() != (255, 255) for _, strip in _strips(image, 1)
    )


def flatten(
    image: "PIL.Image.Image", size: tuple[int, int], *, transparent: bool, profile: bytes | None = None
) -> "PIL.Image.Image":
    """Flatten a loaded image, and scale it down.

    Args:
        image: Of any mode.
        size: Width and height to deliver.
        transparent: Whether it has transparent pixels, see `is_transparent`.
        profile: The color profile to convert from; None keeps the levels.

    Returns:
        An RGB image.
    """
    import PIL.Image  # noqa: PLC0415 - loaded late

    if is_deep(image):
        return _flatten_deep(image, size, transparent=transparent)
    base_mode = image.mode if image.mode in ("CMYK", "L") and not transparent else "RGB"
    transform = srgb_transform(profile, base_mode)
    factors = _reducing_factors(image.size, size)
    if image.mode == "RGB" and not transparent and transform is None and factors == (1, 1):
        return _resize(image, size)
    canvas = PIL.Image.new("RGB", (-(-image.width // factors[0]), -(-image.height // factors[1])))
    for top, strip in _strips(image, factors[1]):
        flat = _composite(strip) if transparent else strip
        flat = flat if flat.mode == base_mode else flat.convert(base_mode)
        flat = flat.reduce(factors) if factors != (1, 1) else flat
        flat = flat.convert("RGB") if transform is None else convert_to_srgb(flat, transform)
        canvas.paste(flat, (0, top // factors[1]))
    return _resize(canvas, size, (0, 0, image.width / factors[0], image.height / factors[1]))


def to_8_bit(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Scale gray levels to 0..255; Pillow's own conversion clips everything above 255.

    16-bit levels are divided by 257. Integers and floats of 0 to 255 are kept, those of up to 65,535 are taken for 16
    bits, floats of 0 to 1 for fractions, and any others are stretched from minimum to maximum.
    """
    levels = image.convert("F")
    return _scale_levels(levels, _level_range(image, levels))


def _level_range(image: "PIL.Image.Image", levels: "PIL.Image.Image") -> tuple[float, float]:
    low, high = cast("tuple[float, float]", levels.getextrema())
    whites = {"I": (_WHITE_8_BIT, _WHITE_16_BIT), "F": (1.0, _WHITE_8_BIT, _WHITE_16_BIT)}.get(
        image.mode, (_WHITE_16_BIT,)
    )
    if low >= 0 and high <= _WHITE_16_BIT:
        return 0.0, next(white for white in whites if high <= white)
    return low, high


def _scale_levels(levels: "PIL.Image.Image", level_range: tuple[float, float]) -> "PIL.Image.Image":
    low, high = level_range
    scale = 255 / (high - low) if high > low else 0.0
    return levels.point(lambda level: level * scale + (0.5 - low * scale)).convert("L")


def _flatten_deep(image: "PIL.Image.Image", size: tuple[int, int], *, transparent: bool) -> "PIL.Image.Image":
    levels = image if image.mode == "F" else image.convert("F")
    level_range = _level_range(image, levels)
    key = image.info.get("transparency")
    if transparent and isinstance(key, int):
        levels.paste(level_range[1], mask=_equal_to(levels, key))
    return _scale_levels(_resize(levels, size), level_range).convert("RGB")


def _equal_to(levels: "PIL.Image.Image", key: int) -> "PIL.Image.Image":
    """Make a mask of the pixels of one integer level."""
    from PIL import ImageChops  # noqa: PLC0415 - loaded late

    above = levels.point(lambda level: level * 255.0 + -255.0 * key).convert("L")
    below = levels.point(lambda level: level * -255.0 + 255.0 * key).convert("L")
    return ImageChops.invert(ImageChops.lighter(above, below))


def _composite(strip: "PIL.Image.Image") -> "PIL.Image.Image":
    import PIL.Image  # noqa: PLC0415 - loaded late

    strip = strip if strip.mode == "RGBA" else strip.convert("RGBA")
    background = PIL.Image.new("RGB", strip.size, "white")
    background.paste(strip, mask=strip.getchannel("A"))
    return background


def _strips(image: "PIL.Image.Image", factor: int) -> "Iterator[tuple[int, PIL.Image.Image]]":
    """Cut an image into strips of rows that are a multiple of `factor`, each with its first row."""
    rows = _STRIP_ROWS * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _reducing_factors(full: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Compute by what whole pixels are averaged before they are filtered: as in Pillow's `resize`, more of a large image."""
    gap = 1.0 if 4 * full[0] * full[1] > _MAX_CANVAS_BYTES else _REDUCING_GAP
    return int(full[0] / size[0] / gap) or 1, int(full[1] / size[1] / gap) or 1


def _resize(
    image: "PIL.Image.Image", size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> "PIL.Image.Image":
    if image.size == size:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    # As fast as the bilinear filter of the model's own image processor, and sharper.
    return image.resize(size, PIL.Image.Resampling.HAMMING, box, reducing_gap=_REDUCING_GAP)

"""Encoded bytes to upright RGB pixels, no more of them than are wanted; what is damaged or a bomb is refused."""

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from llama_vision.core.errors import ImageError
from llama_vision.images.dimensions import image_dimensions
from llama_vision.images.media_type import sniff_media_type

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 178_000_000
"""A file that claims more is taken for a decompression bomb. Pillow draws the line at the same place."""

Size: TypeAlias = tuple[int, int]

_READERS = {
    "image/png": ("PIL.PngImagePlugin", "PngImageFile"),
    "image/jpeg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "image/gif": ("PIL.GifImagePlugin", "GifImageFile"),
    "image/webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "image/bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "image/tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
}
"""Each file is given to the one decoder that its first bytes ask for: of a polyglot no other part is ever looked at."""

_ISOBMFF_FORMATS = {
    "image/avif": "AVIF",
    "image/heic": "HEIF",
}  # by the names under which decoders register with Pillow
_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})  # every reader takes these alike
_ORIENTATION = 0x0112  # EXIF
_EIGHT, _SIXTEEN = 255.0, 65535.0  # white in as many bits
_EXIF_TRANSPOSE = {  # by EXIF's numbers, the names of Pillow's remedies
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image's pixels.

    Attributes:
        image: Upright RGB, of the size that was asked for.
        media_type: What the file was, such as `image/png`.
        is_unmodified: Whether these are the file's own pixels: none were scaled, turned, composited or left out.

    """

    image: "PIL.Image.Image"
    media_type: str
    is_unmodified: bool


def decode(data: bytes, choose_size: Callable[[int, int], Size]) -> DecodedImage:
    """Decode an image.

    Transparent pixels are laid on white. Of an animation, the first frame is taken.

    Args:
        data: The encoded file.
        choose_size: Tells, from width and height in pixels, the width and height to deliver; never larger ones.

    Returns:
        The pixels, and what had to be done for them.

    Raises:
        ImageError: It is no image, is cut off or damaged, claims too many pixels, or needs a decoder that is not
            installed.

    """
    media_type = sniff_media_type(data)
    _check_pixels(image_dimensions(data))
    try:
        return _decode(_opened(data, media_type), media_type, choose_size)
    except ImageError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise almost anything
        kind = media_type.removeprefix("image/").upper()
        reason = str(error)[:200].rstrip(".") or type(error).__name__
        raise ImageError(
            f"The {kind} file of {len(data)} bytes can't be decoded: {reason}. "
            "It is cut off or damaged; save or fetch it again."
        ) from error


def _check_pixels(size: Size | None) -> None:
    if size is None:
        return
    if min(size) < 1:
        raise ImageError(f"The image is {size[0]} x {size[1]} pixels: there is nothing to see.")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"The image claims {size[0]} x {size[1]} pixels, more than {MAX_PIXELS / 1e6:.0f} million, and was not "
            "decoded: it may be a decompression bomb. Scale it down; the model sees at most 1120 x 1120 pixels."
        )


def _opened(data: bytes, media_type: str) -> "PIL.Image.Image":
    """Read the header. `PIL.Image.open` is passed by because it warns from 89 million pixels on."""
    if media_type in _READERS:
        module, name = _READERS[media_type]
        reader: Any = getattr(importlib.import_module(module), name)
    else:
        reader = _isobmff_reader(media_type)
    return reader(io.BytesIO(data), "")


def _isobmff_reader(media_type: str) -> Any:
    import PIL.Image  # noqa: PLC0415 - loaded late

    PIL.Image.init()
    name = _ISOBMFF_FORMATS[media_type]
    if name not in PIL.Image.OPEN:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:
            raise ImageError(
                f"This is {media_type.removeprefix('image/').upper()}, as phones store it, and no decoder for it is "
                "installed: pip install pillow-heif, or save it as JPEG or PNG."
            ) from None
    return PIL.Image.OPEN[name][0]


def _decode(image: "PIL.Image.Image", media_type: str, wanted: Callable[[int, int], Size]) -> DecodedImage:
    _check_pixels(image.size)
    moving = _is_animated(image)
    full = image.size
    size = wanted(*full)
    if media_type == "image/jpeg":
        image.draft(None, size)  # a half, quarter or eighth of each side costs next to nothing
        image.load()
    else:
        image.load()
        full = image.size  # Pillow turns TIFF upright by itself
        size = wanted(*full)
    transpose = _EXIF_TRANSPOSE.get(_orientation(image))
    transparent = _is_transparent(image)
    as_stored = (
        size == full and transpose is None and not (moving or transparent) and image.mode in _PLAIN_MODES
    )
    return DecodedImage(
        _transpose(_resize(_to_rgb(image, transparent), size), transpose), media_type, as_stored
    )


def _is_animated(image: "PIL.Image.Image") -> bool:
    """Look for a second frame; they are never counted, for there may be thousands."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - what comes after the first frame is damaged: it is not to be passed on
        return True


def _orientation(image: "PIL.Image.Image") -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data do not damage the image
        return 1


def _is_transparent(image: "PIL.Image.Image") -> bool:
    """Tell whether anything shines through: most screenshots have an alpha channel and make no use of it."""
    if not image.has_transparency_data or image.mode[0] in "IF":
        return False
    seen = image if image.mode == "RGBA" else image.convert("RGBA")
    return seen.getchannel("A").getextrema() != (255, 255)


def _to_rgb(image: "PIL.Image.Image", transparent: bool) -> "PIL.Image.Image":
    import PIL.Image  # noqa: PLC0415 - loaded late

    if transparent:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        ground = PIL.Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    if image.mode[0] in "IF":
        image = _to_8_bit(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Bring grey levels to 0..255; Pillow's own conversion makes everything above 255 white.

    16 bits are divided. Of whole and real numbers, 0 to 255 are taken as they are, up to 65,535 as 16 bits, reals from
    0 to 1 as shares, and any others are stretched from the lowest to the highest.
    """
    levels = image.convert("F")
    low, high = cast("tuple[float, float]", levels.getextrema())
    usual = {"I": (_EIGHT, _SIXTEEN), "F": (1.0, _EIGHT, _SIXTEEN)}.get(image.mode, (_SIXTEEN,))
    if low >= 0 and high <= _SIXTEEN:
        low, high = 0.0, next(white for white in usual if high <= white)
    scale = 255 / (high - low) if high > low else 0.0
    return levels.point(lambda level: level * scale + (0.5 - low * scale)).convert("L")


def _resize(image: "PIL.Image.Image", size: Size) -> "PIL.Image.Image":
    if image.size == size:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    # As fast as bilinear, with which the model's own processor scales, and sharper.
    return image.resize(size, PIL.Image.Resampling.HAMMING, reducing_gap=2.0)


def _transpose(image: "PIL.Image.Image", way: str | None) -> "PIL.Image.Image":
    if way is None:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    return image.transpose(PIL.Image.Transpose[way])

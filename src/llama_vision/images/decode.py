"""Decodes files to upright RGB pixels at the size that is needed; damaged files and decompression bombs are refused."""

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
"""A file that claims more is taken for a decompression bomb; Pillow's own limit."""

_MAX_PIXELS_COPIED = MAX_PIXELS // 2
"""The same for modes that have to be converted at full size: each pixel is held twice, in 4 bytes, and 1 GB is enough."""

Size: TypeAlias = tuple[int, int]

_READERS = {
    "image/png": ("PIL.PngImagePlugin", "PngImageFile"),
    "image/jpeg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "image/gif": ("PIL.GifImagePlugin", "GifImageFile"),
    "image/webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "image/bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "image/tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
}
"""Each file is given to the one decoder that its signature asks for: no other part of a polyglot is read."""

_ISOBMFF_FORMATS = {
    "image/avif": "AVIF",
    "image/heic": "HEIF",
}  # by the names under which decoders register with Pillow
_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})  # every decoder handles these alike
_ONE_COPY_MODES = frozenset({"1", "L", "P", "RGB"})
_ORIENTATION = 0x0112  # EXIF
_WHITE_8_BIT, _WHITE_16_BIT = 255.0, 65535.0
_EXIF_TRANSPOSE = {  # by EXIF orientation, names of `PIL.Image.Transpose`
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
        image: Upright RGB, of the requested size.
        media_type: The file's encoding, such as `image/png`.
        is_unmodified: Whether these are the file's own pixels: not scaled, transposed or composited, of its only frame.
    """

    image: "PIL.Image.Image"
    media_type: str
    is_unmodified: bool


def decode(data: bytes, choose_size: Callable[[int, int], Size]) -> DecodedImage:
    """Decode an encoded image: upright RGB, transparent pixels composited on white, the first frame of an animation.

    `choose_size` maps width and height in pixels, before any transposition, to the size to deliver, never a larger one.

    Raises:
        ImageError: It is no image, is truncated, claims too many pixels, or needs a decoder that is not installed.
    """
    media_type = sniff_media_type(data)
    _check_dimensions(image_dimensions(data))
    try:
        return _decode(_open(data, media_type), media_type, choose_size)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        kind = media_type.removeprefix("image/").upper()
        reason = str(error)[:200].rstrip(".") or type(error).__name__
        raise ImageError(
            f"The {kind} file of {len(data)} bytes can't be decoded: {reason}. "
            "It is cut off or damaged; save or fetch it again."
        ) from error


def _check_dimensions(size: Size | None, max_pixels: int = MAX_PIXELS) -> None:
    if size is None:
        return
    if min(size) < 1:
        raise ImageError(f"The image is {size[0]} x {size[1]} pixels: there is nothing to see.")
    if size[0] * size[1] > max_pixels:
        raise ImageError(
            f"The image claims {size[0]} x {size[1]} pixels, more than {max_pixels / 1e6:.0f} million, and was not "
            "decoded: it may be a decompression bomb. Scale it down; the model sees at most 1120 x 1120 pixels."
        )


def _open(data: bytes, media_type: str) -> "PIL.Image.Image":
    """Read the header. Not by `PIL.Image.open`, which warns from 89 million pixels on."""
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


def _decode(
    image: "PIL.Image.Image", media_type: str, choose_size: Callable[[int, int], Size]
) -> DecodedImage:
    is_copied = media_type != "image/jpeg" and (
        image.mode not in _ONE_COPY_MODES or image.has_transparency_data
    )
    _check_dimensions(image.size, _MAX_PIXELS_COPIED if is_copied else MAX_PIXELS)
    animated = _is_animated(image)
    full = image.size
    size = choose_size(*full)
    if media_type == "image/jpeg":
        image.draft(None, size)  # decoding at 1/2, 1/4 or 1/8 of each side is far cheaper
        image.load()
    else:
        image.load()
        full = image.size  # Pillow transposes TIFF by itself
        size = choose_size(*full)
    transpose = _EXIF_TRANSPOSE.get(_orientation(image))
    transparent = _is_transparent(image)
    is_unmodified = (
        size == full and transpose is None and not (animated or transparent) and image.mode in _PLAIN_MODES
    )
    pixels = _transpose(_resize(_to_rgb(image, transparent), size), transpose)
    return DecodedImage(pixels, media_type, is_unmodified)


def _is_animated(image: "PIL.Image.Image") -> bool:
    """Look for a second frame; frames are never counted, as there may be thousands."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - what follows the first frame is damaged: not to be passed through
        return True


def _orientation(image: "PIL.Image.Image") -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data does not damage the image
        return 1


def _is_transparent(image: "PIL.Image.Image") -> bool:
    """Tell whether any pixel is transparent: most screenshots have an alpha channel that is opaque everywhere."""
    if not image.has_transparency_data or image.mode[0] in "IF":
        return False
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    return rgba.getchannel("A").getextrema() != (255, 255)


def _to_rgb(image: "PIL.Image.Image", transparent: bool) -> "PIL.Image.Image":
    import PIL.Image  # noqa: PLC0415 - loaded late

    if transparent:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        background = PIL.Image.new("RGB", image.size, "white")
        background.paste(image, mask=image.getchannel("A"))
        return background
    if image.mode[0] in "IF":
        image = _to_8_bit(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Scale gray levels to 0..255; Pillow's own conversion clips everything above 255.

    16-bit levels are divided by 257. Integers and floats of 0 to 255 are kept, those of up to 65,535 are taken for 16
    bits, floats of 0 to 1 for fractions, and any others are stretched from minimum to maximum.
    """
    levels = image.convert("F")
    low, high = cast("tuple[float, float]", levels.getextrema())
    whites = {"I": (_WHITE_8_BIT, _WHITE_16_BIT), "F": (1.0, _WHITE_8_BIT, _WHITE_16_BIT)}.get(
        image.mode, (_WHITE_16_BIT,)
    )
    if low >= 0 and high <= _WHITE_16_BIT:
        low, high = 0.0, next(white for white in whites if high <= white)
    scale = 255 / (high - low) if high > low else 0.0
    return levels.point(lambda level: level * scale + (0.5 - low * scale)).convert("L")


def _resize(image: "PIL.Image.Image", size: Size) -> "PIL.Image.Image":
    if image.size == size:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    # As fast as the bilinear filter of the model's own image processor, and sharper.
    return image.resize(size, PIL.Image.Resampling.HAMMING, reducing_gap=2.0)


def _transpose(image: "PIL.Image.Image", method: str | None) -> "PIL.Image.Image":
    if method is None:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    return image.transpose(PIL.Image.Transpose[method])

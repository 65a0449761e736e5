"""Decodes files to upright RGB pixels at the size that is needed; damaged files and decompression bombs are refused."""

import contextlib
import importlib
import io
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from llama_vision.core.errors import ImageError
from llama_vision.images.color_profile import srgb_transform
from llama_vision.images.decode_budget import MAX_DECODE_BYTES, decode_budget
from llama_vision.images.dimensions import image_dimensions
from llama_vision.images.flatten import (
    correct_transparency,
    flatten,
    has_empty_alpha,
    is_deep,
    is_transparent,
)
from llama_vision.images.media_type import sniff_media_type
from llama_vision.images.metadata import StrippedFile, strip_metadata

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 178_000_000
"""A file that claims more is taken for a decompression bomb; Pillow's own limit."""

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

_ISOBMFF_FORMATS = {  # the names under which decoders register with Pillow, and where they come from
    "image/avif": ("AVIF", "pip install 'pillow>=11.3'"),
    "image/heic": ("HEIF", "pip install pillow-heif"),
}
_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})  # every decoder handles these alike
_ORIENTATION = 0x0112  # EXIF
_MAX_STORED_BYTES = 300_000_000  # uncompressed: two seconds of zlib
_MAX_SCANNED_PIXELS = 1_000_000_000
_MAX_METADATA_BYTES, _MAX_BYTES_PER_PIXEL = 64_000, 8
_DRAFT_SCALES = (8, 4, 2, 1)  # of libjpeg
_MAX_DIVISOR = 8
_MODE_BYTES = {
    "1": 1,
    "L": 1,
    "P": 1,
    "I;16": 2,
    "I;16B": 2,
    "I;16L": 2,
}  # of a pixel in memory; 4 of other modes
_FRAME_BYTES = 16  # of a pixel, by decoders that keep frames: two canvases, a copy, and Pillow's own
_PNG_DEPTH_AT = 24
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_TIFF_BITS_PER_SAMPLE = 258
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
        is_unmodified: Whether these are the file's own pixels: not scaled, transposed, composited or converted, of its only
            frame, in a file that holds little else.
    """

    image: "PIL.Image.Image"
    media_type: str
    is_unmodified: bool


def decode(
    data: bytes, choose_size: Callable[[int, int], Size], *, color_managed: bool = False
) -> DecodedImage:
    """Decode an encoded image: upright RGB, transparent pixels composited on white, the first frame of an animation.

    Waits while other threads use up the memory for decoding (`decode_budget`).

    Args:
        data: The encoded file.
        choose_size: Maps width and height in pixels, before any transposition, to the size to deliver, never a larger one.
            What is too large for the memory is delivered at 1/2, 1/4 or 1/8 of that.
        color_managed: Whether colors are converted to sRGB where the file has a color profile.

    Raises:
        ImageError: It is no image, is truncated, takes too much time or memory, or needs a decoder that is not installed.
    """
    media_type = sniff_media_type(data)
    _check_dimensions(image_dimensions(data))
    try:
        return _decode(data, media_type, choose_size, color_managed=color_managed)
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
    name, advice = _ISOBMFF_FORMATS[media_type]
    if name not in PIL.Image.OPEN and name == "HEIF":
        with contextlib.suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
    if name not in PIL.Image.OPEN:
        raise ImageError(
            f"This is {media_type.removeprefix('image/').upper()}, as phones store it, and no decoder for it is "
            f"installed: {advice}, or save it as JPEG or PNG."
        )
    return PIL.Image.OPEN[name][0]


def _decode(
    data: bytes, media_type: str, choose_size: Callable[[int, int], Size], *, color_managed: bool
) -> DecodedImage:
    stripped = strip_metadata(data, media_type)
    with contextlib.ExitStack() as stack:
        if media_type == "image/webp":  # its decoder takes the memory when it is opened
            width, height = image_dimensions(data) or (0, 0)
            stack.enter_context(_reserve((width, height), _FRAME_BYTES * width * height))
        image = _open(stripped.data, media_type)
        _check_dimensions(image.size)
        _check_duration(image, stripped, media_type)
        wanted = choose_size(*image.size)
        if media_type != "image/webp":
            divisor, num_bytes = _affordable_divisor(image, stripped, media_type, wanted)
            stack.enter_context(_reserve(image.size, num_bytes))
            choose_size = _divided(choose_size, divisor)
        full, size = image.size, choose_size(*image.size)
        if media_type == "image/jpeg":
            image.draft(None, size)  # decoding at 1/2, 1/4 or 1/8 of each side is far cheaper
        correct_transparency(image)
        image.load()
        if media_type == "image/tiff":
            full = image.size  # Pillow transposes TIFF by itself
            size = choose_size(*full)
        is_plain = (
            _is_mostly_pixels(data, stripped, full)
            and stripped.is_intact
            and not (stripped.is_animated or _is_animated(image))
        )
        return _to_decoded(image, media_type, full, size, is_plain=is_plain, color_managed=color_managed)


def _to_decoded(
    image: "PIL.Image.Image", media_type: str, full: Size, size: Size, *, is_plain: bool, color_managed: bool
) -> DecodedImage:
    transpose = _EXIF_TRANSPOSE.get(_orientation(image))
    transparent = is_transparent(image)
    profile = image.info.get("icc_profile") if color_managed else None
    pixels = flatten(image, size, transparent=transparent, profile=profile)
    is_unmodified = (
        is_plain
        and size == full
        and transpose is None
        and not (transparent or has_empty_alpha(image))
        and image.mode in _PLAIN_MODES
        and srgb_transform(profile, image.mode) is None
    )
    return DecodedImage(_transpose(pixels, transpose), media_type, is_unmodified)


def _check_duration(image: "PIL.Image.Image", stripped: StrippedFile, media_type: str) -> None:
    """Refuse what takes longer than its pixels let expect."""
    pixels = image.width * image.height
    if stripped.scans * pixels > _MAX_SCANNED_PIXELS:
        raise _too_large(image.size, f"has {stripped.scans} scans, each of all pixels")
    stored = pixels * _bits_per_pixel(image, stripped.data, media_type) // 8
    if stored > _MAX_STORED_BYTES:
        raise _too_large(
            image.size,
            f"has {stored / 1e6:.0f} MB uncompressed, of at most {_MAX_STORED_BYTES / 1e6:.0f}",
        )


def _bits_per_pixel(image: "PIL.Image.Image", data: bytes, media_type: str) -> int:
    if media_type == "image/png":
        return data[_PNG_DEPTH_AT] * _PNG_CHANNELS.get(data[_PNG_DEPTH_AT + 1], 4)
    if media_type == "image/tiff":
        bits: Any = cast("Any", image).tag_v2.get(_TIFF_BITS_PER_SAMPLE, 1)
        return sum(cast("tuple[int, ...]", bits)) if isinstance(bits, tuple) else int(bits)
    return 8


def _affordable_divisor(
    image: "PIL.Image.Image", stripped: StrippedFile, media_type: str, wanted: Size
) -> tuple[int, int]:
    """Find by what each side of the wanted size has to be divided for the memory to suffice, and how much that is."""
    divisor = 1
    while True:
        size = max(1, wanted[0] // divisor), max(1, wanted[1] // divisor)
        num_bytes = _decoding_bytes(image, stripped, media_type, size)
        if num_bytes <= MAX_DECODE_BYTES or divisor == _MAX_DIVISOR:
            return divisor, num_bytes
        divisor *= 2


def _divided(choose_size: Callable[[int, int], Size], divisor: int) -> Callable[[int, int], Size]:
    def choose(width: int, height: int) -> Size:
        size = choose_size(width, height)
        return max(1, size[0] // divisor), max(1, size[1] // divisor)

    return choose


def _decoding_bytes(image: "PIL.Image.Image", stripped: StrippedFile, media_type: str, size: Size) -> int:
    """Estimate how much memory decoding to a size takes at most, the result included."""
    full_pixels = pixels = image.width * image.height
    if media_type == "image/jpeg":
        scale = min(image.width // size[0], image.height // size[1])
        pixels //= next(each for each in _DRAFT_SCALES if scale >= each) ** 2
    # Of a PNG without EXIF data `getexif` would decode the pixels to look for them behind.
    is_turned = (media_type == "image/tiff" or "exif" in image.info) and _orientation(image) != 1
    copies = (image.mode != "RGB" or pixels != size[0] * size[1]) + is_turned
    total = len(stripped.data) + pixels * _MODE_BYTES.get(image.mode, 4) + 4 * size[0] * size[1] * copies
    if media_type == "image/jpeg" and stripped.scans > 1:  # coefficients of all of the image, of 2 bytes
        total += 2 * len(image.getbands()) * full_pixels
    if media_type == "image/tiff":  # a strip may hold all of it
        total += pixels * _bits_per_pixel(image, stripped.data, media_type) // 8
    if media_type in _ISOBMFF_FORMATS:
        total += _FRAME_BYTES * pixels
    if is_deep(image) and (image.mode != "F" or pixels == size[0] * size[1]):  # converted to real numbers
        total += 8 * pixels
    return total


@contextlib.contextmanager
def _reserve(size: Size, num_bytes: int) -> Generator[None]:
    if num_bytes > MAX_DECODE_BYTES:
        raise _too_large(
            size, f"takes {num_bytes / 1e6:.0f} MB to decode, of at most {MAX_DECODE_BYTES / 1e6:.0f}"
        )
    with decode_budget.reserve(num_bytes):
        yield


def _too_large(size: Size, reason: str) -> ImageError:
    return ImageError(
        f"The image of {size[0]} x {size[1]} pixels can't be decoded: it {reason}. "
        "Scale it down; the model sees at most 1120 x 1120 pixels."
    )


def _is_mostly_pixels(data: bytes, stripped: StrippedFile, size: Size) -> bool:
    """Tell a file that may be sent as it is from one whose metadata are larger than they should be."""
    return (
        len(data) - len(stripped.data) <= _MAX_METADATA_BYTES
        and len(data) <= _MAX_METADATA_BYTES + _MAX_BYTES_PER_PIXEL * size[0] * size[1]
    )


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


def _transpose(image: "PIL.Image.Image", method: str | None) -> "PIL.Image.Image":
    if method is None:
        return image
    import PIL.Image  # noqa: PLC0415 - loaded late

    return image.transpose(PIL.Image.Transpose[method])

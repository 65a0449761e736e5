"""PIL images and arrays, as a PNG file that shows what a viewer would show of them."""

import io
from typing import TYPE_CHECKING, Any

from llama_vision.core.errors import ImageError
from llama_vision.images.flatten import correct_transparency, flatten, has_empty_alpha, is_deep, to_8_bit

if TYPE_CHECKING:
    import PIL.Image

_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_ALPHA_MODES = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
_ORIENTATION = 0x0112  # EXIF


def encode_png(image: "PIL.Image.Image") -> bytes:
    """Encode a PIL image: upright by its EXIF orientation, deep gray levels scaled, colors in sRGB or with their profile.

    Raises:
        ImageError: It has no pixels, or its file is truncated or closed.
    """
    buffer = io.BytesIO()
    try:
        correct_transparency(image)
        image.load()
        _png_image(image).save(buffer, format="PNG", compress_level=1)  # fast: it is decoded again at once
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise ImageError(f"The PIL image ({image.mode}, {image.size}) can't be used: {error}.") from error
    return buffer.getvalue()


def _png_image(image: "PIL.Image.Image") -> "PIL.Image.Image":
    from PIL import ImageOps  # noqa: PLC0415 - loaded late

    opaque = has_empty_alpha(image)
    profile = image.info.get("icc_profile")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if opaque:
        return image.convert("RGB")
    if image.mode in _PNG_MODES:
        return image
    if is_deep(image):
        return to_8_bit(image).convert("RGB")
    if image.mode in _ALPHA_MODES:
        return image.convert(_ALPHA_MODES[image.mode])
    flat = flatten(image, image.size, transparent=False, profile=profile)  # CMYK and others
    flat.info.pop("icc_profile", None)
    return flat


def image_from_array(array: Any) -> "PIL.Image.Image":
    """Make a PIL image from an array, or what numpy makes one of, such as a tensor.

    Args:
        array: uint8 or bool, (height, width), (height, width, 3) or (height, width, 4).

    Raises:
        ImageError: It has another shape or type.
    """
    import PIL.Image  # noqa: PLC0415 - loaded late

    if not hasattr(array, "__array_interface__"):
        import numpy as np  # noqa: PLC0415 - whoever has such an object has numpy

        try:
            array = np.asarray(array)
        except Exception as error:  # a tensor on a GPU, or one that needs a gradient
            raise ImageError(f"The {type(array).__name__} can't be made an array: {error}") from error
    dtype, shape = str(array.dtype), tuple(array.shape)
    if dtype not in ("uint8", "bool") or shape[2:] not in ((), (3,), (4,)) or shape[1:] == ():
        raise ImageError(
            f"An array of {dtype} with shape {shape} is not an image: it needs uint8 values (0 to 255), as "
            "height x width, or height x width x 3 (RGB) or 4 (RGBA). Of values from 0 to 1: (array * 255).astype('uint8'); "
            "of deep gray levels: PIL.Image.fromarray(array)."
        )
    return PIL.Image.fromarray(array)

"""Conversion of an image with a color profile (ICC) to sRGB, as viewers do."""

import io
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import PIL.Image

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # by the profile's color space
_GRID = (0, 64, 128, 192, 255)
_MAX_DIFFERENCE = 3  # levels: profiles that are all called sRGB differ by that


def srgb_transform(profile: bytes | None, mode: str) -> Any | None:
    """Build the transform from a profile to sRGB for images of a mode (`RGB`, `L`, `CMYK`).

    Returns:
        An `ImageCms` transform; None where there is no profile, it is sRGB, it is damaged or one of another kind of image,
        which viewers ignore, or this Pillow has no littlecms.
    """
    if not profile:
        return None
    try:
        from PIL import ImageCms  # noqa: PLC0415 - loaded late

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        details = cast("Any", source).profile
        if _MODES.get(details.xcolor_space.strip()) != mode:
            return None
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
        return None if mode != "CMYK" and _is_identity(transform, mode) else transform
    except Exception:  # noqa: BLE001 - littlecms raises several kinds on damaged profiles
        return None


def convert_to_srgb(image: "PIL.Image.Image", transform: Any) -> "PIL.Image.Image":
    """Apply a transform of `srgb_transform`."""
    from PIL import ImageCms  # noqa: PLC0415 - loaded late

    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is not done in place
    return converted


@cache
def _srgb() -> Any:
    from PIL import ImageCms  # noqa: PLC0415 - loaded late

    return cast("Any", ImageCms).createProfile("sRGB")


def _is_identity(transform: Any, mode: str) -> bool:
    """Compare a grid of colors with what becomes of them."""
    import PIL.Image  # noqa: PLC0415 - loaded late
    from PIL import ImageChops  # noqa: PLC0415 - loaded late

    colors = bytes(level for color in product(_GRID, repeat=3) for level in color)
    grid = PIL.Image.frombytes("RGB", (len(_GRID), len(_GRID) ** 2), colors).convert(mode)
    difference = ImageChops.difference(grid.convert("RGB"), convert_to_srgb(grid, transform))
    extrema = cast("tuple[tuple[int, int], ...]", difference.getextrema())
    return max(high for _, high in extrema) <= _MAX_DIFFERENCE

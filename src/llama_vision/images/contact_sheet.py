"""Several images on one numbered contact sheet, for models and providers that accept a single one."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.decode import decode
from llama_vision.images.encode import encode, is_graphic
from llama_vision.images.tiling import TILE_SIZE, fit_within

if TYPE_CHECKING:
    import PIL.Image

_SHEET_SIDE = 2 * TILE_SIZE
_MAX_IMAGES = 100  # in cells of fewer than 112 pixels nothing is recognizable
_QUALITY = 85


def check_sheet_count(count: int) -> None:
    """Check that this many images fit on a sheet.

    Raises:
        ImageError: They don't.
    """
    if not 0 < count <= _MAX_IMAGES:
        raise ImageError(f"A sheet holds 1 to {_MAX_IMAGES} images, and there are {count}.")


def contact_sheet(images: Sequence[Image], *, lossless: bool = False) -> Image:
    """Lay at most 100 images out on one sheet, each scaled down to its cell, never up.

    Returns:
        A sheet of at most 1120 x 1120 pixels: equal cells on white, row by row, each with its number, from 1, above its
        image at the left. PNG where it is `lossless` or does not look like a photograph, else JPEG.

    Raises:
        ImageError: There are none or too many, one is given by its URL, or one can't be decoded; the text says which.
    """
    check_sheet_count(len(images))
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    max_cell = _SHEET_SIDE // columns
    side = max_cell - _label_height(max_cell)
    thumbnails = [_thumbnail(image, number, side) for number, image in enumerate(images, start=1)]
    largest = max(max(thumbnail.size) for thumbnail in thumbnails)
    label = min(max_cell - side, _label_height(largest))
    sheet = _draw_sheet(thumbnails, columns, rows, largest + label, label)
    media_types = ("image/png",) if lossless or is_graphic(sheet) else ("image/jpeg",)
    data, media_type = encode(sheet, media_types, _QUALITY, None)
    return Image(data=data, media_type=media_type)


def _label_height(side: int) -> int:
    """Make numbers legible beside images of this side."""
    return max(14, side // 10)


def _thumbnail(image: Image, number: int, side: int) -> "PIL.Image.Image":
    if image.data is None:
        raise ImageError(
            f"Image {number} is an address ({image.url}) and can't be put on a sheet. Download it and pass its bytes."
        )
    try:
        fit = partial(fit_within, max_width=side, max_height=side)
        return decode(image.data, fit, color_managed=True).image
    except ImageError as error:
        raise ImageError.numbered(number, error) from error


def _draw_sheet(
    images: list["PIL.Image.Image"], columns: int, rows: int, cell: int, label: int
) -> "PIL.Image.Image":
    import PIL.Image  # noqa: PLC0415 - loaded late
    from PIL import ImageDraw, ImageFont  # noqa: PLC0415 - loaded late

    sheet = PIL.Image.new("RGB", (columns * cell, rows * cell), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(label * 0.8)
    for index, image in enumerate(images):
        left, top = index % columns * cell, index // columns * cell
        draw.text((left + 2, top + label / 2), str(index + 1), "black", font, anchor="lm")
        sheet.paste(image, (left, top + label))
    return sheet

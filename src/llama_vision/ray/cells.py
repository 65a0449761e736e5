"""Parses the cells of a batch: prompts and images."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Image
from llama_vision.images import image_from_any

_MISSING = {"NAType", "NaTType"}  # pandas' missing values, beside None and NaN
_LIST_KINDS = frozenset("OSU")  # numpy's dtype kinds of objects, bytes and text


def is_missing(cell: object) -> bool:
    """Tell whether a cell is a missing value of any table library."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or type(cell).__name__ in _MISSING


def parse_prompt(cell: object) -> str:
    """Return a cell that is text and not blank.

    Raises:
        UnsupportedInputError: It is not.
    """
    if isinstance(cell, str) and cell.strip():
        return cell
    what = "empty" if is_missing(cell) or isinstance(cell, str) else f"a {type(cell).__name__}"
    raise UnsupportedInputError(f"The prompt is {what}: there has to be text in each row.")


def parse_images(cell: object) -> tuple[Image, ...]:
    """Parse the images of a cell, in order.

    Args:
        cell: Bytes, a path, a URL, a PIL image, an array (height x width x 3), an image of Hugging Face's datasets
            (`{"bytes": ..., "path": ...}`), a list of these, or a missing value.

    Raises:
        ImageError: One can't be read, or is missing among others.
    """
    if is_missing(cell):
        return ()
    items = _as_list(cell)
    if items is None:
        return (_image(cell),)
    images: list[Image] = []
    for number, item in enumerate(items, start=1):
        try:
            images.append(_image(item))
        except ImageError as error:
            raise ImageError(f"Image {number} of {len(items)}: {error}") from error
    return tuple(images)


def _as_list(cell: object) -> list[object] | None:
    """Return the items of a list or an array of objects; an array of numbers is one image."""
    if isinstance(cell, list | tuple):
        return list(cast("Iterable[object]", cell))
    kind = getattr(getattr(cell, "dtype", None), "kind", "")
    return list(cast("Iterable[object]", cell)) if kind in _LIST_KINDS and kind else None


def _image(cell: Any) -> Image:
    if isinstance(cell, Mapping):
        spec = cast("Mapping[str, Any]", cell)
        source: Any = spec.get("path") if spec.get("bytes") is None else spec["bytes"]
        if source is None:
            raise ImageError(f"An image is a dictionary with {sorted(spec)}, and has neither bytes nor path.")
        return image_from_any(source)
    if is_missing(cell):
        raise ImageError("It is missing. Leave it out of the list.")
    return image_from_any(cell)

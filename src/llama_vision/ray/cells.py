"""One cell of a column: a question, one image, several or none."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Image
from llama_vision.images import image_from_any

_MISSING = {"NAType", "NaTType"}  # what pandas has for no value, beside None and NaN
_NO_NUMBERS = frozenset("OSU")  # numpy's kinds of objects, bytes and text


def is_missing(cell: object) -> bool:
    """Tell whether a cell is empty, in the spelling of any library of tables."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or type(cell).__name__ in _MISSING


def parse_prompt(cell: object) -> str:
    """Read a question.

    Args:
        cell: Of the column of questions.

    Returns:
        Its words.

    Raises:
        UnsupportedInputError: There are none.

    """
    if isinstance(cell, str) and cell.strip():
        return cell
    what = "empty" if is_missing(cell) or isinstance(cell, str) else f"a {type(cell).__name__}"
    raise UnsupportedInputError(f"The prompt is {what}: there has to be text in each row.")


def parse_images(cell: object) -> tuple[Image, ...]:
    """Read images.

    Args:
        cell: Bytes, a path, a URL, a PIL image, an array (height x width x 3), what Hugging Face's datasets have for a
            image (`{"bytes": ..., "path": ...}`), a list of several of these, or nothing.

    Returns:
        The images, in order.

    Raises:
        ImageError: One can't be read, or is missing among others.

    """
    if is_missing(cell):
        return ()
    several = _several(cell)
    if several is None:
        return (_image(cell),)
    images: list[Image] = []
    for number, each in enumerate(several, start=1):
        try:
            images.append(_image(each))
        except ImageError as error:
            raise ImageError(f"Image {number} of {len(several)}: {error}") from error
    return tuple(images)


def _several(cell: object) -> list[object] | None:
    """Take a list for what it is; an array of numbers is one image."""
    if isinstance(cell, list | tuple):
        return list(cast("Iterable[object]", cell))
    kind = getattr(getattr(cell, "dtype", None), "kind", "")
    return list(cast("Iterable[object]", cell)) if kind in _NO_NUMBERS and kind else None


def _image(cell: Any) -> Image:
    if isinstance(cell, Mapping):
        told = cast("Mapping[str, Any]", cell)
        source: Any = told.get("path") if told.get("bytes") is None else told["bytes"]
        if source is None:
            raise ImageError(f"An image is a dictionary with {sorted(told)}, and has neither bytes nor path.")
        return image_from_any(source)
    if is_missing(cell):
        raise ImageError("It is missing. Leave it out of the list.")
    return image_from_any(cell)

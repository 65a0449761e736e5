"""A grid of thumbnails with captions."""

import math
from collections.abc import Iterable, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import TypeAlias, cast

from llama_vision.captions import find_images
from llama_vision.core.errors import ImageError
from llama_vision.core.formatting import MAX_FIGURE_CAPTION, html_figures, sanitize
from llama_vision.images import ImageSource, image_from_any
from llama_vision.images.thumbnail import thumbnail_url
from llama_vision.jupyter.notebook import display_html, is_notebook

Images: TypeAlias = (
    "ImageSource | Sequence[ImageSource] | ValuesView[ImageSource] | Mapping[str, ImageSource]"
)
"""One image, several, or several with captions."""

_MAX_IMAGES = 100
_MAX_BYTES = 40_000  # of each thumbnail as stored in the notebook; a drawing takes a tenth of it
_PIXEL_RATIO = 1.5  # image pixels per CSS pixel, for high-density screens


class ImageGrid:
    """Images side by side. A notebook displays it as a cell's last value; printed, it is a line per image.

    Attributes:
        captions: One for each image.
    """

    def __init__(
        self,
        images: Images,
        captions: Iterable[object] | None = None,
        *,
        columns: int | None = None,
        width: int = 200,
    ) -> None:
        """Make the thumbnails; arguments and errors are those of `show_images`."""
        if width < 1 or (columns is not None and columns < 1):
            raise ValueError(f"columns and width are 1 or more, and not {columns} and {width}.")
        named = _named(images)
        self.captions = (
            [name for name, _ in named] if captions is None else [str(caption) for caption in captions]
        )
        if len(self.captions) != len(named):
            raise ValueError(f"There are {len(self.captions)} captions for {len(named)} images.")
        self._columns = columns
        self._width = width
        self._num_hidden = max(0, len(named) - _MAX_IMAGES)
        self._names = [name for name, _ in named[:_MAX_IMAGES]]
        self._thumbnails = [
            _thumbnail(number, source, width)
            for number, (_, source) in enumerate(named[:_MAX_IMAGES], start=1)
        ]

    def _repr_html_(self) -> str:
        figures = list(zip(self._thumbnails, self.captions, strict=False))
        return html_figures(figures, width=self._width, columns=self._columns, more=self._num_hidden)

    def __repr__(self) -> str:
        """Format a line per image; image bytes are never printed."""
        lines = [
            f"[{sanitize(name, MAX_FIGURE_CAPTION)}] {sanitize(caption, MAX_FIGURE_CAPTION)}"
            for name, caption in zip(self._names, self.captions, strict=False)
        ]
        return "\n".join([*lines, *([f"... and {self._num_hidden} more"] if self._num_hidden else [])])


def show_images(
    images: Images,
    captions: Iterable[object] | None = None,
    *,
    columns: int | None = None,
    width: int = 200,
    notebook: bool | None = None,
) -> None:
    """Display images side by side, each with its caption.

        show_images("photos")
        show_images(["cat.jpg", "dog.jpg"], captions=["a cat", "a dog"])
        show_images({"a cat": "cat.jpg"}, width=400)

    In a notebook they are displayed as thumbnails, at most 100, so that the notebook's file stays small; elsewhere a line is
    printed for each. `ImageGrid` takes the same arguments and displays nothing by itself.

    Args:
        images: A folder, or one or several images in any form that `llama_vision.image_from_any` takes, except URLs. A mapping's
            keys are captions.
        captions: One for each image, converted by `str`; by default their file names. They are escaped.
        columns: Images per row; None fits as many as there is room for.
        width: Of each image on the page, in CSS pixels.
        notebook: Whether this is a notebook; None detects it.

    Raises:
        ImageError: An image can't be read, or is a URL. The text begins with its number.
        ValueError: `captions` and `images` differ in length, or a number is less than 1.
        MissingDependencyError: `notebook` is True, and IPython is not installed.
    """
    grid = ImageGrid(images, captions, columns=columns, width=width)
    if is_notebook(notebook):
        display_html(grid._repr_html_(), repr(grid))  # pyright: ignore[reportPrivateUsage] - IPython's name for it
    else:
        print(grid)


def _named(images: Images) -> list[tuple[str, ImageSource]]:
    if isinstance(images, Mapping):
        return list(images.items())
    if isinstance(images, (str, Path)) and _is_directory(images):
        images = find_images(images).images
    if isinstance(images, (list, tuple, ValuesView)):
        several = list(cast("Iterable[ImageSource]", images))
    else:
        several = [cast("ImageSource", images)]
    return [(_name(source, number), source) for number, source in enumerate(several, start=1)]


def _is_directory(source: str | Path) -> bool:
    """Tell whether it is a folder, and no URL or file."""
    return not str(source).lower().startswith("data:") and Path(source).expanduser().is_dir()


def _name(source: ImageSource, number: int) -> str:
    is_path = isinstance(source, (str, Path)) and not str(source).lower().startswith("data:")
    return Path(cast("str | Path", source)).name if is_path else f"image {number}"


def _thumbnail(number: int, source: ImageSource, width: int) -> str:
    """Encode a thumbnail as a data URL."""
    try:
        return thumbnail_url(
            image_from_any(source), side=math.ceil(width * _PIXEL_RATIO), max_bytes=_MAX_BYTES
        )
    except ImageError as error:
        raise ImageError(f"Image {number}: {error}") from error

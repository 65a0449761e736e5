"""How Llama 3.2 Vision cuts an image into tiles, and what that costs in tokens: arithmetic, no decoder.

The rule is that of Transformers' Mllama image processor with the released `preprocessor_config.json`: tiles of
560 x 560 pixels, at most 4, in the smallest arrangement that needs no scaling down, else in the one that needs the
least.
"""

import math
from functools import lru_cache

TILE_SIZE = 560
"""The side of a tile in pixels."""

TOKENS_PER_TILE = 1601
"""A tile is 40 x 40 patches of 14 pixels, and one token for the whole: https://docs.together.ai/docs/vision-overview."""

MAX_TILES = 4
"""The most tiles of an image."""


@lru_cache
def supported_aspect_ratios(max_tiles: int = MAX_TILES) -> tuple[tuple[int, int], ...]:
    """List what tiles can be laid out as.

    Args:
        max_tiles: The most tiles there may be.

    Returns:
        (rows, columns) in the order in which the processor tries them, where the first of equals is taken, and in which the
        network numbers them from 1.

    """
    sides = range(1, max_tiles + 1)
    return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles)


def optimal_tile_grid(
    width: int, height: int, *, tile: int = TILE_SIZE, max_tiles: int = MAX_TILES
) -> tuple[int, int]:
    """Tell how an image is laid out.

    Args:
        width: In pixels, upright.
        height: In pixels, upright.
        tile: The side of a tile in pixels.
        max_tiles: The most tiles there may be.

    Returns:
        Columns and rows of tiles.

    Raises:
        ValueError: A side is not positive.

    """
    _check(width, height)
    scales = {
        layout: min(layout[0] * tile / height, layout[1] * tile / width)
        for layout in supported_aspect_ratios(max_tiles)
    }
    up = [scale for scale in scales.values() if scale >= 1]
    wanted = min(up) if up else max(scales.values())
    fitting = [layout for layout in supported_aspect_ratios(max_tiles) if scales[layout] == wanted]
    rows, columns = min(fitting, key=lambda layout: layout[0] * layout[1])
    return columns, rows


def image_tokens(width: int, height: int, detail: str | None = None) -> int:
    """Count the tokens of an image.

    Args:
        width: In pixels, upright.
        height: In pixels, upright.
        detail: With `low`, the image is scaled down to one tile before it is sent.

    Returns:
        1,601 for each tile. Hosts bill so; a few that count only the placeholder report 1.

    Raises:
        ValueError: A side is not positive.

    """
    columns, rows = (1, 1) if detail == "low" else optimal_tile_grid(width, height)
    return columns * rows * TOKENS_PER_TILE


def target_size(
    width: int, height: int, *, detail: str | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """Tell what the model can use of an image: more pixels than these are thrown away before it sees them.

    Args:
        width: In pixels, upright.
        height: In pixels, upright.
        detail: With `low`, what fits one tile.
        max_pixels: The most pixels there may be, besides.

    Returns:
        Width and height in pixels, of the same shape as the image's, and never larger.

    Raises:
        ValueError: A side or `max_pixels` is not positive.

    """
    columns, rows = (1, 1) if detail == "low" else optimal_tile_grid(width, height)
    size = fit_within(width, height, columns * TILE_SIZE, rows * TILE_SIZE)
    if max_pixels is None or size[0] * size[1] <= max_pixels:
        return size
    if max_pixels < 1:
        raise ValueError(f"max_pixels is {max_pixels}; 1 is the least.")
    scale = math.sqrt(max_pixels / (size[0] * size[1]))
    short = max(1, math.floor(min(size) * scale))
    long = max(1, min(math.floor(max(size) * scale), max_pixels // short))
    return (long, short) if width > height else (short, long)


def fit_within(
    width: int, height: int, max_width: int, max_height: int, *, min_side: int = 1
) -> tuple[int, int]:
    """Scale a size into a frame, as the model's own processor rounds it.

    Args:
        width: In pixels.
        height: In pixels.
        max_width: The frame's width in pixels.
        max_height: The frame's height in pixels.
        min_side: Scale up what is smaller than this, until a side is of it or of the frame.

    Returns:
        Width and height in pixels, each at least 1; unchanged where they fit and neither is less than `min_side`.

    Raises:
        ValueError: A side is not positive.

    """
    _check(width, height)
    wide, high = min(max(width, min_side), max_width), min(max(height, min_side), max_height)
    by_width, by_height = wide / width, high / height
    if by_width < by_height:
        return wide, min(math.floor(height * by_width) or 1, high)
    return min(math.floor(width * by_height) or 1, wide), high


def _check(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise ValueError(f"An image of {width} x {height} pixels has none.")

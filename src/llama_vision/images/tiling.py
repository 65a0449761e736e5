"""How Llama 3.2 Vision splits an image into tiles, and how many tokens they are: arithmetic, no decoder.

The rule is that of Transformers' Mllama image processor with the released `preprocessor_config.json`: tiles of
560 x 560 pixels, at most 4, in the smallest grid that needs no downscaling, else in the one that needs the
least.
"""

import math
from functools import lru_cache

TILE_SIZE = 560
"""A tile's side in pixels."""

TOKENS_PER_TILE = 1601
"""A tile is 40 x 40 patches of 14 pixels, and a class token: https://docs.together.ai/docs/vision-overview."""

MAX_TILES = 4
"""The maximum number of tiles of an image."""


@lru_cache
def supported_aspect_ratios(max_tiles: int = MAX_TILES) -> tuple[tuple[int, int], ...]:
    """List the grids of tiles, (rows, columns), in the order in which the model numbers them from 1."""
    sides = range(1, max_tiles + 1)
    return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles)


def optimal_tile_grid(
    width: int, height: int, *, tile: int = TILE_SIZE, max_tiles: int = MAX_TILES
) -> tuple[int, int]:
    """Choose the grid of tiles, (columns, rows), for an upright image of a size in pixels.

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
    """Count the tokens of an upright image of a size in pixels: 1,601 per tile, and one tile with detail `low`.

    Hosts bill so; a few count only the placeholder token and report 1.

    Raises:
        ValueError: A side is not positive.
    """
    columns, rows = (1, 1) if detail == "low" else optimal_tile_grid(width, height)
    return columns * rows * TOKENS_PER_TILE


def target_size(
    width: int, height: int, *, detail: str | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """Compute the size in pixels at which the model uses an upright image: it discards more pixels than these.

    The aspect ratio is kept, and no image grows. With detail `low`, it fits one tile.

    Raises:
        ValueError: A side or `max_pixels` is not positive.
    """
    columns, rows = (1, 1) if detail == "low" else optimal_tile_grid(width, height)
    return limit_pixels(*fit_within(width, height, columns * TILE_SIZE, rows * TILE_SIZE), max_pixels)


def limit_pixels(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    """Scale a size down to at most `max_pixels`, each side at least 1; None is no limit.

    Raises:
        ValueError: `max_pixels` is not positive.
    """
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    if max_pixels < 1:
        raise ValueError(f"max_pixels is {max_pixels}; 1 is the minimum.")
    scale = math.sqrt(max_pixels / (width * height))
    short = max(1, math.floor(min(width, height) * scale))
    long = max(1, min(math.floor(max(width, height) * scale), max_pixels // short))
    return (long, short) if width > height else (short, long)


def fit_within(
    width: int, height: int, max_width: int, max_height: int, *, min_side: int = 1
) -> tuple[int, int]:
    """Scale a size into a frame, with the rounding of the model's own image processor.

    Images of less than `min_side` are scaled up until a side reaches it or the frame.

    Raises:
        ValueError: A side is not positive.
    """
    _check(width, height)
    frame_width, frame_height = min(max(width, min_side), max_width), min(max(height, min_side), max_height)
    by_width, by_height = frame_width / width, frame_height / height
    if by_width < by_height:
        return frame_width, min(math.floor(height * by_width) or 1, frame_height)
    return min(math.floor(width * by_height) or 1, frame_width), frame_height


def _check(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise ValueError(f"An image of {width} x {height} pixels has none.")

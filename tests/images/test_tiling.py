"""Tiles and tokens by arithmetic, as Transformers' own processor lays pictures out."""

import random

import pytest

from llama_vision.images.tiling import TILE_SIZE, fit_within, image_tokens, optimal_tile_grid, target_size

EDGES = [
    1,
    2,
    5,
    279,
    280,
    281,
    559,
    560,
    561,
    839,
    1119,
    1120,
    1121,
    1680,
    1681,
    2239,
    2240,
    2241,
    4480,
    12000,
]
CHANCE = random.Random(4)
SIZES = [(width, height) for width in EDGES for height in EDGES]
SIZES += [(CHANCE.randint(1, 4000), CHANCE.randint(1, 4000)) for _ in range(2000)]


@pytest.fixture(scope="module")
def mllama():
    """Transformers' own processor, which takes seconds to load."""
    from transformers.models.mllama import image_processing_pil_mllama

    return image_processing_pil_mllama


def test_the_layout_is_that_of_transformers(mllama):
    for width, height in SIZES:
        high, wide = mllama.get_optimal_tiled_canvas(height, width, 4, TILE_SIZE)
        assert optimal_tile_grid(width, height) == (wide // TILE_SIZE, high // TILE_SIZE), (width, height)


def test_the_size_is_that_of_transformers_but_never_larger_than_the_image(mllama):
    for width, height in SIZES:
        high, wide = mllama.get_optimal_tiled_canvas(height, width, 4, TILE_SIZE)
        high, wide = mllama.get_image_size_fit_to_canvas(height, width, high, wide, TILE_SIZE)
        assert target_size(width, height) == (min(wide, width), min(high, height)), (width, height)


def test_what_was_scaled_once_is_not_scaled_again_and_costs_no_more():
    for size in SIZES:
        target = target_size(*size)
        assert target_size(*target) == target
        assert image_tokens(*target) <= image_tokens(*size)


def test_low_detail_is_one_tile():
    for size in SIZES:
        low = target_size(*size, detail="low")
        assert max(low) <= TILE_SIZE
        assert low == (size if max(size) <= TILE_SIZE else fit_within(*size, TILE_SIZE, TILE_SIZE))
        assert image_tokens(*size, detail="low") == 1601


@pytest.mark.parametrize("most", [1, 2, 1000, 313_600, 10**9])
def test_no_more_pixels_than_asked_for(most):
    for size in SIZES:
        width, height = target_size(*size, max_pixels=most)
        assert width * height <= most
        assert 1 <= width <= size[0]
        assert 1 <= height <= size[1]


def test_the_shape_is_kept():
    assert target_size(4000, 3000) == (1120, 840)
    assert target_size(4000, 3000, max_pixels=120_000) == (400, 300)
    assert target_size(1500, 600) == (1400, 560)
    assert target_size(10_000, 20) == (2240, 4)
    assert target_size(100, 30) == (100, 30)


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((560, 560), 1601), ((1, 1), 1601), ((561, 560), 3202), ((1680, 500), 4803), ((512, 2240), 6404)],
)
def test_tokens(size, tokens):
    assert image_tokens(*size) == tokens
    assert image_tokens(*size, detail="high") == tokens


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
@pytest.mark.parametrize(
    "function", [optimal_tile_grid, target_size, image_tokens, lambda *size: fit_within(*size, 5, 5)]
)
def test_no_pixels(function, size):
    with pytest.raises(ValueError, match="has none"):
        function(*size)


def test_no_pixels_wanted():
    with pytest.raises(ValueError, match="1 is the minimum"):
        target_size(10, 10, max_pixels=0)

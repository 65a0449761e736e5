"""Pictures as numpy arrays."""

import io

import numpy as np
import PIL.Image
import pytest

from llama_vision import image_from_any
from llama_vision.core.errors import ImageError

IMAGES = {
    "grey": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "RGB": np.arange(36, dtype=np.uint8).reshape(3, 4, 3),
    "RGBA": np.arange(48, dtype=np.uint8).reshape(3, 4, 4),
    "a view that is not contiguous": np.arange(72, dtype=np.uint8).reshape(3, 8, 3)[:, ::2],
}


@pytest.mark.parametrize("array", IMAGES.values(), ids=IMAGES)
def test_an_array_becomes_the_same_pixels(array):
    image = image_from_any(array)
    assert image.media_type == "image/png"
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(image.data))), array)


def test_black_and_white():
    image = image_from_any(np.array([[True, False], [False, True]]))
    assert np.asarray(PIL.Image.open(io.BytesIO(image.data)).convert("L")).tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize(
    ("array", "culprit"),
    [
        (np.zeros((3, 4, 3)), "float64"),
        (np.zeros((3, 4), dtype=np.int32), "int32"),
        (np.zeros(7, dtype=np.uint8), r"\(7,\)"),
        (np.zeros((3, 4, 2), dtype=np.uint8), r"\(3, 4, 2\)"),
        (np.zeros((1, 3, 4, 3), dtype=np.uint8), r"\(1, 3, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_refused_with_what_it_needs(array, culprit):
    with pytest.raises(ImageError, match=culprit):
        image_from_any(array)

"""How many pixels an image has, by its first bytes alone."""

import io

import pytest
from PIL import Image

from llama_vision.images.dimensions import image_dimensions

SIZE = (301, 17)


def image(kind, **options):
    file = io.BytesIO()
    Image.new("RGBA" if options.pop("alpha", False) else "RGB", SIZE).save(file, kind, **options)
    return file.getvalue()


IMAGES = {
    "png": image("PNG"),
    "gif": image("GIF"),
    "jpeg": image("JPEG"),
    "jpeg, progressive": image("JPEG", progressive=True),
    "jpeg with a comment": image("JPEG", comment=b"x" * 3000, exif=Image.Exif()),
    "webp": image("WEBP"),
    "webp, lossless": image("WEBP", lossless=True),
    "webp, extended": image("WEBP", alpha=True, exif=b"Exif\0\0"),
}


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES.keys())
def test_the_size_is_told_as_a_decoder_tells_it(data):
    assert image_dimensions(data) == SIZE


def test_padding_and_bare_marks_in_a_jpeg_are_passed_over():
    data = IMAGES["jpeg"]
    assert image_dimensions(data[:2] + b"\xff\xff\xff\x01" + data[2:]) == SIZE


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES.keys())
def test_a_beginning_tells_the_size_or_nothing(data):
    for length in range(min(len(data), 700)):
        assert image_dimensions(data[:length]) in (None, SIZE)


@pytest.mark.parametrize(
    "data", [b"", b"BM not known here", b"\xff\xd8\xff\xe0\x00\x02nothing more", b"RIFF....WEBPVP9 and so on"]
)
def test_what_is_not_known_has_no_size(data):
    assert image_dimensions(data) is None

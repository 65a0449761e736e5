"""Several images on one numbered sheet."""

import PIL.Image
import pytest

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.contact_sheet import contact_sheet
from llama_vision.images.tiling import target_size
from tests.images.images import as_image, opened, photo

COLORS = [
    "red",
    "lime",
    "blue",
    "yellow",
    "magenta",
    "cyan",
    "navy",
    "olive",
    "teal",
    "maroon",
    "purple",
    "orange",
]


def plain(count, size=(300, 300)):
    return [as_image(PIL.Image.new("RGB", size, COLORS[n % len(COLORS)])) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 100])
def test_it_fits_what_the_model_sees(count):
    sheet = opened(contact_sheet(plain(1, (1200, 600)) * count))
    assert max(sheet.size) <= 1120
    assert target_size(*sheet.size) == sheet.size
    assert sheet.mode == "RGB"


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 2), (7, 3, 3), (12, 4, 3)]
)
def test_each_image_is_in_its_cell_in_order(count, columns, rows):
    sheet = opened(contact_sheet(plain(count)))
    wide, high = sheet.width // columns, sheet.height // rows
    assert wide == high
    assert (sheet.width % columns, sheet.height % rows) == (0, 0)
    for place in range(columns * rows):
        middle = (place % columns * wide + wide // 2, place // columns * high + high // 2)
        expected = COLORS[place % len(COLORS)] if place < count else "white"
        assert sheet.getpixel(middle) == PIL.Image.new("RGB", (1, 1), expected).getpixel((0, 0))


def test_each_has_its_number_and_nothing_of_it_is_hidden():
    images = [as_image(PIL.Image.new("RGB", (300, 300), "white")) for _ in range(12)]
    sheet = opened(contact_sheet(images))
    side = sheet.width // 4
    numbers = [
        sheet.crop((x * side, y * side, x * side + side, y * side + side - 236))
        for y in range(3)
        for x in range(4)
    ]
    seen = {number.tobytes() for number in numbers}
    assert len(seen) == 12  # each is another
    assert all(number.convert("L").getextrema()[0] < 90 for number in numbers)
    sheet = opened(contact_sheet(plain(4, (100, 100))))
    assert {
        count for count, color in sheet.getcolors(100_000) if color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    } == {10_000}


def test_small_images_are_not_scaled_up():
    sheet = opened(contact_sheet(plain(4, (40, 30))))
    assert sheet.width < 2 * 80


def test_images_come_out_upright_on_white_and_in_shape():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = PIL.Image.new("RGBA", (400, 100), (0, 0, 255, 255))
    image.paste((0, 0, 0, 0), (0, 0, 100, 100))  # turned, this is at the top
    sheet = opened(contact_sheet([as_image(image, exif=exif)]))
    blue = sum(count for count, color in sheet.getcolors(100_000) if color == (0, 0, 255))
    assert blue == 300 * 100
    assert sheet.getpixel((50, sheet.height - 10)) == (0, 0, 255)
    assert sheet.getpixel((50, sheet.height - 390)) == (255, 255, 255)


def test_the_format_is_chosen_as_for_one_image():
    assert contact_sheet(plain(5)).media_type == "image/png"
    assert contact_sheet([as_image(photo(600, 500), "JPEG") for _ in range(4)]).media_type == "image/jpeg"


@pytest.mark.parametrize("count", [0, 101])
def test_none_and_too_many_are_refused(count):
    with pytest.raises(ImageError, match=f"A sheet holds 1 to 100 images, and there are {count}"):
        contact_sheet(plain(1) * count)


def test_an_address_is_refused():
    with pytest.raises(
        ImageError, match=r"Image 2 is an address \(https://example.com/a\) and can't be put on a sheet"
    ):
        contact_sheet([*plain(1), Image(url="https://example.com/a")])

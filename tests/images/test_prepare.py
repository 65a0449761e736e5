"""An image is sent upright, with the pixels the model uses, and as it is where it already is right."""

from dataclasses import replace

import PIL.Image
import pytest

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_image
from llama_vision.images.settings import EncodingOptions
from tests.images.images import as_image, mean_difference, opened, photo, sketch

RULES = ImageConstraints()
ANY_TYPE = ImageConstraints(
    media_types=frozenset(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"))
)
ORIENTATION = 0x0112
STORED_AS = {  # how a camera that turns the image so has stored it
    1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
}  # fmt: skip
PHOTO = photo(1200, 900)


def refusal(image, rules=RULES, options=EncodingOptions()):  # noqa: B008 - frozen
    with pytest.raises(ImageError) as caught:
        prepare_image(image, rules, options)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [(1, 1), (90, 60), (1120, 1120), (2240, 560), (300, 2240)])
def test_what_is_right_is_passed_on_byte_for_byte(kind, size):
    image = replace(as_image(sketch(*size), kind), detail="high")
    prepared = prepare_image(image, ANY_TYPE)
    assert prepared.data is image.data
    assert prepared == image


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_modes_that_all_readers_take_alike_are_passed_on(mode):
    image = as_image(sketch().convert(mode))
    assert prepare_image(image, RULES).data is image.data


def test_an_address_is_passed_on():
    image = Image(url="https://example.com/a.png")
    assert prepare_image(image, RULES) is image


@pytest.mark.parametrize("label", [None, "image/jpeg", "text/plain"])
def test_a_wrong_label_is_put_right(label):
    image = replace(as_image(sketch()), media_type=label)
    assert prepare_image(image, RULES) == replace(image, media_type="image/png")


def test_the_caller_keeps_his_own():
    image = as_image(PHOTO, "JPEG")
    before = replace(image)
    assert prepare_image(image, RULES) is not image
    assert image == before


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("size", [(90, 60), (1200, 800)], ids=["small", "large"])
@pytest.mark.slow_beyond(16)
def test_every_orientation_comes_out_upright(orientation, kind, size):
    upright = sketch(*size)
    way = STORED_AS[orientation]
    stored = upright.transpose(PIL.Image.Transpose[way]) if way else upright
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    prepared = opened(prepare_image(as_image(stored, kind, exif=exif, **options), RULES))
    expected = upright if size == (90, 60) else upright.resize((1120, 746))
    assert prepared.getexif().get(ORIENTATION, 1) == 1
    assert mean_difference(prepared, expected) < 2


def test_exif_data_go_no_further():
    exif = PIL.Image.Exif()
    exif[ORIENTATION], exif[0x010E] = 6, "taken at home"
    prepared = prepare_image(
        as_image(PHOTO, "JPEG", exif=exif, comment=b"a secret", icc_profile=b"secret" * 40), RULES
    )
    assert not opened(prepared).getexif()
    assert b"taken at home" not in prepared.data
    assert b"secret" not in prepared.data


def test_damaged_exif_data_do_not_damage_the_image():
    image = as_image(sketch(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff and so on")
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):  # Pillow's own
        assert prepare_image(image, RULES).data is image.data


def test_where_warnings_are_errors_damaged_exif_data_are_an_image_error():
    image = as_image(sketch(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff and so on")
    assert "can't be decoded: Corrupt EXIF data" in refusal(image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("size", "sent"),
    [
        ((1600, 1200), (1120, 840)),
        ((1200, 1600), (840, 1120)),
        ((3000, 700), (2240, 522)),
        ((1121, 300), (1121, 300)),
    ],
)
def test_a_large_image_is_scaled_to_what_the_model_uses(kind, size, sent):
    image = PHOTO.resize(size)
    prepared = opened(prepare_image(as_image(image, kind), RULES))
    assert prepared.size == sent
    assert mean_difference(prepared, image.resize(sent)) < 6


def test_low_detail_is_one_tile():
    image = replace(as_image(PHOTO, "JPEG"), detail="low")
    prepared = prepare_image(image, RULES)
    assert prepared.detail == "low"
    assert opened(prepared).size == (560, 420)


def test_fewer_pixels_on_demand():
    assert opened(
        prepare_image(as_image(PHOTO, "JPEG"), RULES, EncodingOptions(max_pixels=120_000))
    ).size == (
        400,
        300,
    )


def test_no_side_longer_than_the_provider_takes():
    assert opened(prepare_image(as_image(sketch(2240, 560)), replace(RULES, max_side=1000))).size == (
        1000,
        250,
    )


def test_a_strip_is_not_made_thinner_than_the_provider_takes():
    rules = replace(RULES, min_side=10)
    assert opened(prepare_image(as_image(sketch(10_000, 20)), rules)).size == (5000, 10)
    assert opened(prepare_image(as_image(sketch(10_000, 20)), RULES)).size == (2240, 4)
    assert opened(prepare_image(as_image(sketch(10_000, 8)), rules)).size == (
        2240,
        1,
    )  # refused by the request's checks

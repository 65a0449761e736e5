"""Photographs become JPEG, drawings and text PNG, always what the provider takes and within its limits."""

from dataclasses import replace

import PIL.Image
import pytest

from llama_vision.core.errors import ConfigurationError, ImageError
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_image
from llama_vision.images.settings import EncodingOptions
from tests.images.images import as_image, opened, photo, sketch

RULES = ImageConstraints()
JPEG_ONLY = ImageConstraints(media_types=frozenset({"image/jpeg"}))
PNG_ONLY = ImageConstraints(media_types=frozenset({"image/png"}))
PHOTO = photo(1200, 900)


def refusal(image, rules=RULES, options=EncodingOptions()):  # noqa: B008 - frozen
    with pytest.raises(ImageError) as caught:
        prepare_image(image, rules, options)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("grey", [False, True])
def test_a_photograph_becomes_jpeg(kind, grey):
    image = PHOTO.convert("L").convert("RGB") if grey else PHOTO
    assert prepare_image(as_image(image, kind), RULES).media_type == "image/jpeg"


def test_a_thing_photographed_on_white_becomes_jpeg():
    image = PIL.Image.new("RGB", (1600, 1200), "white")
    image.paste(PHOTO.resize((900, 700)), (350, 250))
    assert prepare_image(as_image(image), RULES).media_type == "image/jpeg"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_a_drawing_becomes_png(kind):
    prepared = prepare_image(as_image(sketch(1600, 1200), kind), RULES)
    assert prepared.media_type == "image/png"
    assert len(prepared.data) < 20_000


def test_text_becomes_png():
    from PIL import ImageDraw, ImageFont

    page = PIL.Image.new("RGB", (1700, 2200), "white")
    font = ImageFont.load_default(28)
    for line in range(60):
        ImageDraw.Draw(page).text(
            (90, 60 + 34 * line), f"{line} The quick brown fox jumps. " * 3, "black", font
        )
    assert prepare_image(as_image(page), RULES).media_type == "image/png"


def test_jpeg_stays_jpeg():
    assert prepare_image(as_image(sketch(1600, 1200), "JPEG"), RULES).media_type == "image/jpeg"


@pytest.mark.parametrize("image", [photo(600, 700), sketch(1600, 1200)])
@pytest.mark.parametrize("kind", ["BMP", "JPEG", "TIFF"])
@pytest.mark.parametrize("rules", [JPEG_ONLY, PNG_ONLY])
def test_nothing_is_sent_that_the_provider_does_not_take(image, kind, rules):
    assert {prepare_image(as_image(image, kind), rules).media_type} == set(rules.media_types)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("image", [photo(300, 200), sketch()])
def test_the_users_format_is_taken(kind, image):
    for stored in ("PNG", "JPEG"):
        assert (
            prepare_image(as_image(image, stored), RULES, EncodingOptions(format=kind)).media_type
            == f"image/{kind}"
        )


def test_a_format_the_provider_does_not_take_is_refused():
    assert "as PNG, and the provider takes only: image/jpeg." in refusal(
        as_image(sketch()), JPEG_ONLY, EncodingOptions(format="png")
    )
    nothing = replace(RULES, media_types=frozenset())
    assert "as JPEG or PNG, and the provider takes only: nothing." in refusal(as_image(sketch()), nothing)


def test_quality():
    sizes = [
        len(prepare_image(as_image(PHOTO), RULES, EncodingOptions(quality=quality)).data)
        for quality in (20, 95)
    ]
    assert sizes[0] * 3 < sizes[1]


@pytest.mark.parametrize(
    "wrong",
    [{"max_pixels": 0}, {"format": "webp"}, {"quality": 0}, {"quality": 96}],
    ids=str,
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=str(next(iter(wrong.values())))):
        EncodingOptions(**wrong)


@pytest.mark.parametrize("limit", [100_000, 15_000])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_image_is_made_to_fit(kind, limit):
    for rules in (
        replace(RULES, max_bytes=limit),
        replace(RULES, max_base64_chars=limit),
        replace(RULES, max_total_base64_chars=limit),
    ):
        prepared = prepare_image(as_image(PHOTO, kind), rules)
        length = len(prepared.data) if rules.max_bytes else (len(prepared.data) + 2) // 3 * 4
        assert limit / 4 < length
        assert length <= limit - (rules.max_bytes is None)
        opened(prepared)


def test_a_small_image_of_too_many_bytes_is_not_passed_on():
    image = as_image(photo(400, 300))
    for excess in (0, 1):
        prepared = prepare_image(image, replace(RULES, max_bytes=len(image.data) - excess))
        assert (prepared.data is image.data) == (excess == 0)


def test_a_png_stays_one_where_nothing_else_is_taken():
    prepared = prepare_image(as_image(PHOTO), replace(PNG_ONLY, max_bytes=700_000))
    assert prepared.media_type == "image/png"
    assert len(prepared.data) <= 700_000


def test_what_can_not_be_made_small_enough_is_refused():
    assert "can't be made small enough" in refusal(as_image(PHOTO, "JPEG"), replace(RULES, max_bytes=500))

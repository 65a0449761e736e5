"""Whatever a file's pixels are, what is sent is RGB on white."""

import numpy as np
import PIL.Image
import pytest

from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_image
from tests.images.images import as_image, difference, mean_difference, opened, sketch

RULES = ImageConstraints()
ANY_TYPE = ImageConstraints(
    media_types=frozenset(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"))
)
PNG_ONLY = ImageConstraints(media_types=frozenset({"image/png"}))


def on_white(image):
    pixels = np.asarray(image.convert("RGBA"), dtype=float)
    alpha = pixels[..., 3:] / 255
    return PIL.Image.fromarray(np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype("uint8"))


def half_there(mode):
    image = sketch().convert("RGBA")
    image.putalpha(PIL.Image.linear_gradient("L").resize(image.size))
    if mode == "P":
        image = sketch().quantize(16)
        image.info["transparency"] = 0
        return image
    if mode == "RGB":
        image = sketch()
        image.info["transparency"] = (220, 20, 60)
        return image
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("RGB", "PNG"),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("RGBA", "TIFF"),
    ],
)
def test_what_shines_through_is_laid_on_white(mode, kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = half_there(mode)
    prepared = opened(prepare_image(as_image(image, kind, **options), PNG_ONLY))
    assert prepared.mode == "RGB"
    assert difference(prepared, on_white(image)) <= 1
    assert difference(prepared, image) > 100


def test_a_palette_with_shades_of_alpha_is_laid_on_white():
    image = PIL.Image.new("PA", (4, 1))
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putdata([(0, 255), (1, 255), (1, 0), (0, 128)])
    prepared = opened(prepare_image(as_image(image.convert("RGBA")), RULES))
    assert np.asarray(prepared).tolist() == [[[0, 0, 0], [200, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_a_large_image_with_alpha_is_laid_on_white_before_it_is_scaled():
    image = PIL.Image.new("RGBA", (2400, 2400), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 1200, 2400))
    prepared = opened(prepare_image(as_image(image), RULES))
    assert min(prepared.getchannel("R").getextrema()) == 255  # no black fringe


def grey_ramp(dtype, high):
    return np.linspace(0, high, 256).astype(dtype).reshape(16, 16)


@pytest.mark.parametrize(
    ("dtype", "high", "kind"),
    [
        ("uint16", 65535, "PNG"),
        ("uint16", 65535, "TIFF"),
        ("int32", 255, "TIFF"),
        ("int32", 65535, "TIFF"),
        ("int32", 2_000_000, "TIFF"),
        ("float32", 1, "TIFF"),
        ("float32", 255, "TIFF"),
        ("float32", 65535, "TIFF"),
        ("float32", -9, "TIFF"),
    ],
)
def test_grey_of_many_bits_keeps_its_shades(dtype, high, kind):
    image = PIL.Image.fromarray(grey_ramp(dtype, high))
    prepared = opened(prepare_image(as_image(image, kind), PNG_ONLY))
    ramp = np.arange(256).reshape(16, 16)
    expected = PIL.Image.fromarray((ramp if high > 0 else 255 - ramp).astype("uint8"))
    assert difference(prepared, expected) <= 1


@pytest.mark.parametrize("level", [0, 7, 1e30, float("nan"), float("inf")])
def test_real_numbers_that_say_nothing_do_no_harm(level):
    image = PIL.Image.fromarray(np.full((4, 4), level, dtype="float32"))
    assert opened(prepare_image(as_image(image, "TIFF"), RULES)).size == (4, 4)


def test_a_image_for_print_comes_out_in_its_colours():
    prepared = opened(prepare_image(as_image(sketch().convert("CMYK"), "JPEG", quality=95), RULES))
    assert prepared.mode == "RGB"
    assert mean_difference(prepared, sketch()) < 3


def pillow_reads(mode, kind):
    try:
        opened(as_image(sketch().convert(mode), kind))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "TIFF"),
        ("L", "BMP"),
        ("P", "BMP"),
        ("CMYK", "TIFF"),
        pytest.param(
            "YCbCr",
            "TIFF",
            marks=pytest.mark.skipif(
                not pillow_reads("YCbCr", "TIFF"), reason="this Pillow can't read its own file"
            ),
        ),
    ],
)
def test_other_modes(mode, kind):
    image = sketch().convert(mode)
    assert difference(opened(prepare_image(as_image(image, kind), PNG_ONLY)), image) <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_sent(kind):
    frames = [PIL.Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    image = as_image(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    prepared = prepare_image(image, ANY_TYPE)
    assert getattr(opened(prepared), "n_frames", 1) == 1
    assert difference(opened(prepared), frames[0]) <= 1

"""What can't be prepared is refused by name, and several pictures are prepared beside each other."""

import struct
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from PIL import ImageChops

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images import prepare as prepare_module
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_image, prepare_images
from llama_vision.images.settings import EncodingOptions
from tests.images.images import (
    as_image,
    difference,
    encoded,
    mean_difference,
    needs_avif,
    opened,
    photo,
    sketch,
)

RULES = ImageConstraints()


def refusal(pil_image, rules=RULES, options=EncodingOptions()):  # noqa: B008 - frozen
    with pytest.raises(ImageError) as caught:
        prepare_image(pil_image, rules, options)
    return str(caught.value)


def test_nothing():
    assert "it is empty" in refusal(Image(data=b"", media_type="image/png"))


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_needs_a_decoder(brand):
    data = struct.pack(">I", 24) + b"ftyp" + brand + b"\0" * 100
    text = refusal(Image(data=data, media_type="image/heic"))
    assert "This is HEIC" in text
    assert "pip install pillow-heif, or save it as JPEG or PNG" in text


def test_heic_is_read_where_a_decoder_is_registered():
    from PIL import PngImagePlugin

    def open_boxed(file, name):  # what pillow-heif registers, in small: a PNG in a box
        file.seek(24)
        return PngImagePlugin.PngImageFile(file, name)

    PIL.Image.register_open("HEIF", open_boxed)
    try:
        data = (struct.pack(">I", 24) + b"ftypheic").ljust(24, b"\0") + encoded(sketch())
        prepared = prepare_image(Image(data=data, media_type="image/heic"), RULES)
    finally:
        PIL.Image.OPEN.pop("HEIF")
        PIL.Image.ID.remove("HEIF")
    assert prepared.media_type == "image/png"
    assert difference(opened(prepared), sketch()) == 0


@needs_avif
def test_avif_is_encoded_anew():
    prepared = prepare_image(as_image(sketch(), "AVIF", quality=95), RULES)
    assert prepared.media_type == "image/png"
    assert mean_difference(opened(prepared), sketch()) < 3


def test_several_come_out_in_order():
    images = [as_image(photo(700 + 10 * n, 300), "JPEG") for n in range(6)]
    images.insert(2, Image(url="https://example.com/a.png"))
    images.insert(4, images[0])
    options = EncodingOptions(quality=71)
    assert prepare_images(images, RULES, options) == [
        prepare_image(pil_image, RULES, options) for pil_image in images
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_few_need_no_other_thread(count):
    prepare_module._pool.cache_clear()
    images = [as_image(photo(90, 70), "BMP") for _ in range(count)]
    assert len(prepare_images(images, RULES)) == count
    assert prepare_module._pool.cache_info().currsize == 0


def test_a_bad_one_is_named_by_its_number():
    images = [as_image(sketch(80 + n, 60), "BMP") for n in range(4)]
    images[2] = Image(data=b"\xff\xd8\xff and nothing", media_type="image/jpeg")
    with pytest.raises(ImageError, match=r"^Image 3: The JPEG file of 15 bytes can't be decoded"):
        prepare_images(images, RULES)


def test_images_share_what_a_request_may_hold():
    images = [as_image(photo(1000, 800), "JPEG") for _ in range(3)]
    alone = [prepare_image(pil_image, RULES) for pil_image in images]
    rules = replace(RULES, max_total_base64_chars=sum(len(pil_image.data) for pil_image in alone))
    lengths = [(len(pil_image.data) + 2) // 3 * 4 for pil_image in prepare_images(images, rules)]
    assert rules.max_total_base64_chars / 3 < sum(lengths) < rules.max_total_base64_chars


def test_scaling_a_photograph_is_as_good_as_scaling_all_its_pixels():
    large = photo(2600, 1950)
    prepared = opened(prepare_image(as_image(large, "JPEG", quality=95), RULES, EncodingOptions(quality=95)))
    best = large.resize((1120, 840), PIL.Image.Resampling.LANCZOS)
    error = np.asarray(ImageChops.difference(prepared, best), dtype=float)
    assert (error**2).mean() < 20  # above 35 dB


def test_a_forked_process_has_its_own_threads():
    import os

    images = [as_image(photo(90 + n, 70), "BMP") for n in range(3)]
    expected = prepare_images(images, RULES)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is what is tested
        child = os.fork()
    if not child:
        os._exit(0 if prepare_images(images, RULES) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0

"""The image processor equals transformers' own, bit for bit."""

import io
import random

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from llama_vision.backends.local.image_processor import (
    parse_image_processor_config,
    preprocess_image,
    to_pixel_values,
)
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import ImageError, LocalModelError
from llama_vision.core.messages import Image
from llama_vision.images import image_from_any

PUBLISHED = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "MllamaImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_image_tiles": 4,
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 560, "width": 560},
}
"""The preprocessor_config.json of the 11B."""

SIZES = [
    (1, 1),
    (1, 2000),
    (4000, 1),
    (96, 96),
    (97, 300),
    (560, 560),
    (561, 1119),
    (1120, 1120),
    (1999, 733),
]
MODES = ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "YCbCr", "HSV"]
CPU = torch.device("cpu")


def noise(size, mode="RGB", seed=0):
    """A random image in a mode, with random transparency where there is any."""
    levels = np.random.default_rng(seed)
    wide, high = size
    if mode == "I;16":
        return PIL.Image.fromarray(levels.integers(0, 65536, (high, wide), dtype=np.uint16))
    if mode in {"RGBA", "LA"}:
        image = PIL.Image.fromarray(levels.integers(0, 256, (high, wide, 4), dtype=np.uint8))
        return image if mode == "RGBA" else image.convert("LA")
    return PIL.Image.fromarray(levels.integers(0, 256, (high, wide, 3), dtype=np.uint8)).convert(mode)


def on_white(image):
    white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
    return PIL.Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def in_8_bits(image):
    """Scale the levels of 16 bits, which Pillow and transformers would cut off at 255."""
    return PIL.Image.fromarray(np.floor(np.asarray(image) / 257 + 0.5).astype(np.uint8))


def tiled(image, config):
    return preprocess_image(image_from_any(image), 1, config)


def hugging_face(images, options):
    images = [in_8_bits(one) if one.mode == "I;16" else one for one in images]
    # transformers 5.17 drops what says where an image shines through; later ones put it on white, as we do.
    images = [on_white(one) if "A" in one.getbands() else one for one in images]
    return MllamaImageProcessorPil(**options)(images=[[one] for one in images], return_tensors="pt")


def check_equal(images, options):
    config = parse_image_processor_config(options)
    tiles = [tiled(image, config) for image in images]
    ours, theirs = to_pixel_values(tiles, config, CPU, torch.float32), hugging_face(images, options)
    assert set(ours) == {"pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"}
    for name, found in ours.items():
        assert torch.equal(found, theirs[name]), name
    assert [[one.count] for one in tiles] == theirs["num_tiles"]
    return ours


@pytest.fixture(scope="module")
def tiny_options():
    return load_model("tiny").image_processor_config


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.slow_beyond(3)
def test_every_size(size, tiny_options):
    for options in (PUBLISHED, tiny_options):
        check_equal([noise(size)], options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow_beyond(3)
def test_every_mode(mode, tiny_options):
    for options in (PUBLISHED, tiny_options):
        for size in [(33, 50), (700, 600)]:
            check_equal([noise(size, mode)], options)


def test_a_palette_with_transparency():
    image = noise((50, 40)).quantize(16)
    image.info["transparency"] = 3
    opaque = image.convert("RGB")
    opaque.info.clear()
    config = parse_image_processor_config(PUBLISHED)
    ours, flat, without = (tiled(one, config).canvas for one in (image, on_white(image), opaque))
    assert torch.equal(ours, flat)
    assert not torch.equal(ours, without)


OPTIONS = {
    "one tile": {"max_image_tiles": 1},
    "six tiles": {"max_image_tiles": 6, "size": {"height": 56, "width": 56}},
    "another filter": {"resample": 3},
    "levels as they are": {"do_rescale": False},
    "nothing but tiles": {"do_rescale": False, "do_normalize": False},
    "another scale": {
        "rescale_factor": 1 / 127.5,
        "image_mean": [1.0, 1.0, 1.0],
        "image_std": [1.0, 1.0, 1.0],
    },
    "not even": {"do_normalize": False},
}


@pytest.mark.parametrize("changed", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.slow_beyond(3)
def test_the_checkpoints_options_take_effect(changed):
    images = [noise(size, seed=seed) for seed, size in enumerate([(90, 40), (300, 1000), (640, 480)])]
    check_equal(images, PUBLISHED | changed)


def test_two_hundred_random_sizes():
    chance = random.Random(6)
    options = PUBLISHED | {"size": {"height": 28, "width": 28}}
    for seed in range(200):
        check_equal([noise((chance.randint(1, 150), chance.randint(1, 150)), seed=seed)], options)


def test_half_precision_is_rounded_once():
    config = parse_image_processor_config(PUBLISHED)
    tiles = [tiled(noise((700, 600)), config)]
    full, half = (to_pixel_values(tiles, config, CPU, kind) for kind in (torch.float32, torch.bfloat16))
    assert torch.equal(full["pixel_values"].bfloat16(), half["pixel_values"])


def test_the_device_gets_one_byte_per_level():
    tiles = tiled(noise((1120, 1120)), parse_image_processor_config(PUBLISHED))
    assert (tiles.canvas.dtype, tiles.canvas.nbytes) == (torch.uint8, 3 * 1120 * 1120)


def test_options_that_other_versions_write_change_nothing():
    # Among others what the processor of transformers 4.57 saves.
    others = {
        **dict.fromkeys(
            ["crop_size", "device", "disable_grouping", "do_center_crop", "input_data_format", "pad_size"]
        ),
        "data_format": "channels_first",
        "default_to_square": True,
        "image_processor_type": "MllamaImageProcessorFast",
        "processor_class": "MllamaProcessor",
        "return_tensors": None,
    }
    assert parse_image_processor_config(PUBLISHED | others) == parse_image_processor_config(PUBLISHED)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"do_center_crop": True, "sharpen": 2}, "the options do_center_crop, sharpen"),
        ({"image_processor_type": "CLIPImageProcessor"}, "the processor CLIPImageProcessor"),
        ({"do_pad": False}, "not scaled and laid out"),
        ({"size": {"shortest_edge": 560}}, "KeyError: 'height'"),
        ({"size": {"height": 560, "width": 280}}, "560 x 280"),
        ({"max_image_tiles": 0}, "0 of them"),
        ({"resample": 77}, "77"),
        ({"image_mean": [0.5, 0.5]}, "three colours"),
        ({"image_std": None}, "can't be read"),
    ],
)
def test_unsupported_options_are_refused_by_name(changed, text):
    with pytest.raises(LocalModelError, match=text):
        parse_image_processor_config(PUBLISHED | changed)


def test_a_broken_image_is_refused():
    buffer = io.BytesIO()
    noise((100, 100)).save(buffer, "PNG")
    config = parse_image_processor_config(PUBLISHED)
    assert preprocess_image(Image(buffer.getvalue(), "image/png"), 1, config).count == 1
    with pytest.raises(ImageError, match=r"Image 2: The PNG file of 3000 bytes can't be decoded"):
        preprocess_image(Image(buffer.getvalue()[:3000], "image/png"), 2, config)

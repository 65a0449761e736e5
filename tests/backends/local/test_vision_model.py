"""Encoding images without an attention mask gives what transformers' vision model gives with one."""

import pytest
import torch

from llama_vision.backends.local.image_processor import (
    parse_image_processor_config,
    resize_and_tile,
    to_pixel_values,
)
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.vision_model import encode_tiles
from tests.drawing import one_shape
from tests.hugging_face import transformers_model, with_four_tiles


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


@pytest.fixture(scope="module")
def tiled(loaded):
    return with_four_tiles(loaded)


@pytest.mark.parametrize("size", [(90, 90), (180, 90), (90, 280), (190, 190)])
def test_vision_features_are_those_of_transformers(tiled, size):
    config = parse_image_processor_config(tiled.image_processor_config)
    tiles = [resize_and_tile(one_shape(seed)[0].resize(size), config) for seed in range(3)]
    vision_model, dtype = tiled.model.model.vision_model, tiled.model.dtype
    inputs = to_pixel_values(tiles, config, torch.device("cpu"), dtype)
    with torch.inference_mode():
        expected = vision_model(**inputs).last_hidden_state[:, 0, : tiles[0].count].flatten(1, 2)
        found = encode_tiles(
            vision_model, inputs["pixel_values"][:, 0], inputs["aspect_ratio_ids"], tiles[0].count
        )
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_tiny_model_has_one_tile(loaded):
    config = parse_image_processor_config(loaded.image_processor_config)
    inputs = to_pixel_values(
        [resize_and_tile(one_shape(1)[0], config)], config, torch.device("cpu"), loaded.model.dtype
    )
    vision_model = loaded.model.model.vision_model
    with torch.inference_mode():
        theirs = transformers_model(loaded).model.vision_model
        expected = theirs(**inputs).last_hidden_state[:, 0, 0]
        found = encode_tiles(vision_model, inputs["pixel_values"][:, 0], inputs["aspect_ratio_ids"], 1)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()

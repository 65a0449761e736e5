"""What weights and activations take is known from the configuration alone."""

import pytest
import torch
from transformers import MllamaConfig

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.device_map import LM_HEAD, VISION_MODEL
from llama_vision.backends.local.memory_estimate import weights_bytes, working_bytes
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.weights import empty_model

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
GIB = 2**30
EVERYTHING = (VISION_MODEL, "model.language_model.layers.0", LM_HEAD)
ELEVEN_B = MllamaConfig(vision_config={"image_size": 560}, image_token_index=128256)


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_the_weights_of_the_tiny_model_take_what_is_estimated(quantization):
    loaded = load_model("tiny", LocalSettings(device="cpu", dtype="bfloat16", quantization=quantization))
    model = empty_model(loaded.model.config, {})
    assert sum(weights_bytes(model, quantization, torch.bfloat16).values()) == loaded.num_bytes


def test_the_work_of_larger_batches_and_of_gpus_takes_more():
    sizes = [
        working_bytes(ELEVEN_B, count, torch.bfloat16, device, EVERYTHING)
        for count, device in ((16, CPU), (64, CPU), (16, CUDA))
    ]
    assert sizes == sorted(sizes)
    assert sizes[2] - sizes[0] == GIB

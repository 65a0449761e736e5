"""Quantized checkpoints are read as the libraries that wrote them read them, and the model answers as before."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.checkpoints.bitsandbytes import BitsAndBytes
from llama_vision.backends.local.checkpoints.compressed_tensors import CompressedTensors
from llama_vision.backends.local.checkpoints.gptq import Awq, Gptq
from llama_vision.backends.local.int4_linear import Int4Linear
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.quantized_models import KINDS, awq, gptq, write_quantized

LAYERS = sorted((Path(__file__).parent / "layers").glob("*.safetensors"))
BLOCKS = {
    "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8, "block_structure": [16, 16]}}}
}


def reader_of(name):
    if name.startswith("bitsandbytes"):
        return BitsAndBytes({})
    return CompressedTensors(BLOCKS if "block" in name else {})


@pytest.mark.parametrize("path", LAYERS, ids=[path.stem for path in LAYERS])
def test_a_layer_is_dequantized_as_by_the_library_that_wrote_it(path):
    """`write_layers.py` wrote them with bitsandbytes 0.50.2 and compressed-tensors 0.20.0."""
    tensors = load_file(path)
    expected = tensors.pop("dequantized")
    reader = reader_of(path.stem)
    assert reader.is_quantized(tensors)
    torch.testing.assert_close(reader.dequantize(tensors), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "by activation"])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_gptq_layers_are_dequantized(version, shuffled):
    weight = torch.randn(48, 96)
    reader = Gptq({"bits": 4, "checkpoint_format": version})
    found = reader.dequantize(gptq(weight, zero_offset=1 if version == "gptq" else 0, shuffled=shuffled))
    assert found.shape == weight.shape
    assert (found - weight).abs().max() < weight.abs().max() / 7 / 2 + 0.01


def test_awq_layers_are_dequantized():
    weight = torch.randn(48, 96)
    found = Awq({"bits": 4}).dequantize(awq(weight))
    assert (found - weight).abs().max() < weight.abs().max() / 7 / 2 + 0.01


def num_right(folder, count=20, **settings):
    backend = LocalBackend(find_provider("local"), local=LocalSettings(**settings))
    right = 0
    for seed in range(count):
        image, color, shape = one_shape(seed)
        parts = (image_from_any(image), Text(f"What color is the {shape}?"))
        request = ChatRequest(str(folder), (Message("user", parts),), sampling=SamplingParams(temperature=0))
        right += backend.complete(request).text == color
    return right


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow_beyond(2)
def test_a_quantized_tiny_model_answers_as_before(tmp_path, kind, caplog):
    caplog.set_level("INFO", "llama_vision")
    folder = write_quantized(tmp_path / "model", kind)
    assert num_right(folder) >= 19
    assert any(message.endswith(f"from {kind}") for message in caplog.messages)


def test_a_quantized_checkpoint_can_be_quantized_again(tmp_path):
    folder = write_quantized(tmp_path / "model", "GPTQ int4")
    loaded = load_model(str(folder), LocalSettings(device="cpu", quantization="int8"))
    assert loaded.model.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.int8


def dequantized(model, name):
    return model.get_submodule(name).dequantize(0, 10**6)


@pytest.mark.parametrize("kind", ["GPTQ int4", "AWQ int4", "compressed-tensors int4"])
def test_four_bits_of_a_checkpoint_stay_as_they_are(tmp_path, kind):
    folder = write_quantized(tmp_path / "model", kind)
    plain, small = (
        load_model(str(folder), LocalSettings(device="cpu", dtype="float32", quantization=one)).model
        for one in (None, "int4")
    )
    names = [name for name, one in small.named_modules() if isinstance(one, Int4Linear)]
    assert len(names) == 6 * 7
    for name in names:
        found, expected = dequantized(small, name), plain.get_submodule(name).weight
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_four_bits_that_are_not_evenly_spaced_are_quantized_again(tmp_path):
    folder = write_quantized(tmp_path / "model", "bitsandbytes nf4")
    model = load_model(str(folder), LocalSettings(device="cpu", quantization="int4")).model
    assert isinstance(model.model.language_model.layers[0].mlp.up_proj, Int4Linear)


def test_gptq_that_shuffled_its_columns_is_quantized_again():
    tensors = gptq(torch.randn(48, 96), shuffled=True)
    assert Gptq({"bits": 4}).int4(tensors) is None


@pytest.mark.parametrize("path", [path for path in LAYERS if "int4" in path.stem], ids=lambda path: path.stem)
def test_packed_layers_keep_their_zero_points(path):
    tensors = load_file(path)
    expected = tensors.pop("dequantized")
    weight = CompressedTensors({}).int4(tensors)
    layer = Int4Linear(weight, None, torch.float32)
    torch.testing.assert_close(layer.dequantize(0, len(expected)), expected, rtol=1e-3, atol=1e-3)


UNSUPPORTED = [
    (
        {"quant_method": "hqq"},
        "quantized by 'hqq'.*reads bitsandbytes, compressed-tensors, gptq, awq and GGUF.*int8",
    ),
    ({"quant_method": "gptq", "bits": 3}, "have 3 bits.*2, 4 and 8 are read.*Take another checkpoint"),
    ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "GPTQ's format 'marlin'"),
    ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "AWQ's version 'gemv'"),
    ({"quant_method": "awq", "bits": 8}, "have 8 bits.*only 4"),
    (
        {
            "quant_method": "compressed-tensors",
            "format": "nvfp4-pack-quantized",
            "config_groups": {"group_0": {}},
        },
        "format nvfp4-pack-quantized is not read",
    ),
    ({"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24"}}, "are sparse"),
]


@pytest.mark.parametrize(("config", "text"), UNSUPPORTED, ids=[text[:12] for _, text in UNSUPPORTED])
def test_other_quantizations_are_refused_with_what_would_do(tmp_path, monkeypatch, config, text):
    monkeypatch.setitem(KINDS, "other", (config, lambda weight: {"weight": weight}))
    folder = write_quantized(tmp_path / "model", "other")
    with pytest.raises(LocalModelError, match=text) as caught:
        load_model(str(folder))
    assert "Download" not in str(caught.value)

"""int8, int4 and fp8: less memory, and nearly the same logits."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings, parse_local_settings
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.quantization import Fp8Linear, Int8Linear, is_slower_than_bfloat16, quantize
from llama_vision.core.errors import ConfigurationError, LocalModelError
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.hugging_face import model_inputs, row_mask_repaired, transformers_model

CPU = torch.device("cpu")
BF16 = LocalSettings(device="cpu", dtype="bfloat16")
F32 = LocalSettings(device="cpu", dtype="float32")
INT8 = LocalSettings(device="cpu", quantization="int8")
INT4 = LocalSettings(device="cpu", quantization="int4")


def multiplies_fp8_here():
    try:
        Fp8Linear(nn.Linear(16, 16))(torch.ones(1, 16))
    except NotImplementedError:
        return False
    return True


NEEDS_FP8 = pytest.mark.skipif(
    not multiplies_fp8_here(),
    reason="this torch multiplies floats of 8 bits on GPUs alone, as torch 2.5 does",
)


def questions():
    for seed in range(12):
        image, color, shape = one_shape(seed)
        for text, images in [(f"What color is the {shape}?", [image]), (f"Repeat: {color} {shape}", [])]:
            parts = (*(image_from_any(one) for one in images), Text(text))
            yield ChatRequest("tiny", (Message("user", parts),), sampling=SamplingParams(temperature=0))


def all_logits(loaded):
    """The logits after every token of every question."""
    logits, model = [], transformers_model(loaded)
    for request in questions():
        inputs = model_inputs(loaded, request)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(loaded.model.dtype)
        with torch.inference_mode(), row_mask_repaired(model):
            logits.append(model(**inputs).logits[0].float())
    return logits


def difference(found, expected):
    """The mean relative error of logits."""
    errors = [
        ((one - other).norm() / other.norm()).item() for one, other in zip(found, expected, strict=True)
    ]
    return sum(errors) / len(errors)


@pytest.fixture(scope="module")
def expected():
    return all_logits(load_model("tiny", F32))


def with_fp8(loaded):
    model = copy.deepcopy(loaded.model)
    quantize(model, "fp8", CPU)
    return replace(loaded, model=model)


@pytest.mark.slow
def test_logits_differ_by_less_than_documented(expected):
    assert difference(all_logits(load_model("tiny", F32)), expected) == 0
    of_bfloat16 = difference(all_logits(load_model("tiny", BF16)), expected)
    assert 0 < difference(all_logits(load_model("tiny", INT8)), expected) < of_bfloat16 < 0.008
    assert difference(all_logits(load_model("tiny", replace(BF16, quantization="int8"))), expected) < 0.012


@NEEDS_FP8
def test_fp8_logits_differ_by_less_than_documented(expected):
    assert 0.01 < difference(all_logits(with_fp8(load_model("tiny", F32))), expected) < 0.05


@pytest.mark.slow
def test_int4_logits_differ_by_less_than_documented(expected):
    of_bfloat16 = all_logits(load_model("tiny", BF16))
    assert (
        0.08
        < difference(all_logits(load_model("tiny", replace(BF16, quantization="int4"))), of_bfloat16)
        < 0.12
    )
    assert 0.08 < difference(all_logits(load_model("tiny", INT4)), expected) < 0.12


@pytest.mark.parametrize(
    "settings",
    [INT8, replace(INT8, dtype="bfloat16"), INT4, replace(INT4, dtype="bfloat16")],
    ids=["int8, float32", "int8, bfloat16", "int4, float32", "int4, bfloat16"],
)
def test_replies_are_right(settings):
    backend = LocalBackend(find_provider("local"), local=settings)
    for seed in range(10):
        image, color, shape = one_shape(seed)
        parts = (image_from_any(image), Text(f"What color is the {shape}?"))
        assert backend.complete(ChatRequest("tiny", (Message("user", parts),))).text == color


def bytes_of(model, kinds):
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    return sum(one.nbytes for layer in layers for one in [*layer.parameters(), *layer.buffers()])


def test_it_takes_half_the_memory():
    plain, small = (
        load_model("tiny", BF16).model,
        load_model("tiny", replace(BF16, quantization="int8")).model,
    )
    before = bytes_of(plain, nn.Linear)
    kept = bytes_of(small, nn.Linear)
    assert kept == small.lm_head.weight.nbytes
    assert bytes_of(small, Int8Linear) < 0.51 * (before - kept)
    assert not [
        name for name, one in small.named_modules() if isinstance(one, nn.Linear) and name != "lm_head"
    ]


def test_fp8_keeps_vision_and_cross_attention():
    model = with_fp8(load_model("tiny", BF16)).model
    small = [name for name, module in model.named_modules() if isinstance(module, Fp8Linear)]
    assert len(small) == 6 * 3 + 4 * 4  # six layers, of which four are self-attention layers
    assert not [name for name in small if "vision" in name or "cross_attn" in name or "lm_head" in name]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((Int8Linear, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
        *(pytest.param(Fp8Linear, dtype, marks=NEEDS_FP8) for dtype in (torch.float32, torch.bfloat16)),
    ],
)
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_a_layer_multiplies(kind, dtype, rows):
    with torch.random.fork_rng():
        torch.manual_seed(rows)
        layer = nn.Linear(128, 96, dtype=dtype)
        layer.weight.data[3] = 0
        hidden = torch.randn(2, rows, 128, dtype=dtype)
    with torch.inference_mode():
        found, expected = kind(layer)(hidden), layer(hidden)
    assert (found.shape, found.dtype) == (expected.shape, dtype)
    assert (found - expected).norm() / expected.norm() < (0.01 if kind is Int8Linear else 0.05)
    assert torch.isfinite(kind(layer)(torch.zeros_like(hidden))).all()


def test_widths_that_the_int8_kernel_cannot_read():
    layer = nn.Linear(130, 100, bias=False, dtype=torch.bfloat16)
    hidden = torch.randn(3, 130, dtype=torch.bfloat16)
    with torch.inference_mode():
        found, expected = Int8Linear(layer)(hidden), layer(hidden)
    assert (found - expected).norm() / expected.norm() < 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what machines without a Hopper GPU hear")
def test_fp8_says_which_gpus_can():
    with pytest.raises(LocalModelError, match=r"Hopper.*H100, H200.*this is the device cpu.*int8"):
        load_model("tiny", LocalSettings(device="cpu", quantization="fp8"))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"quantization": "int3"}, "int4.*int8.*int3"),
        ({"quantization": "fp8", "dtype": "float16"}, "bfloat16"),
    ],
)
def test_unknown_quantizations_are_refused(values, text):
    with pytest.raises(ConfigurationError, match=text):
        parse_local_settings(values)


def test_what_is_slower_on_a_gpu_is_known():
    slower = [
        (quantization, device)
        for quantization in (None, "int4", "int8", "fp8")
        for device in ("cpu", "cuda", "mps")
        if is_slower_than_bfloat16(quantization, torch.device(device))
    ]
    # NVIDIA's have kernels for int4 and int8.
    assert slower == [("int4", "mps"), ("int8", "mps"), ("fp8", "cuda"), ("fp8", "mps")]

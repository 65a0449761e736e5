"""int4 layers multiply nearly as the layers they were made of, by torch's packed product and without it."""

import math

import pytest
import torch
from torch import nn

from llama_vision.backends.local import int4_linear
from llama_vision.backends.local.int4_linear import (
    Int4Linear,
    Int4Weight,
    group_size,
    grouped_int4,
    quantize_int4,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


@pytest.fixture(params=[True, False], ids=["packed by torch", "plain"])
def packs(request, monkeypatch):
    """Whether torch's product for CPUs is used."""
    if not request.param:
        monkeypatch.setattr(int4_linear, "_packed_order", lambda: None)
    elif int4_linear._packed_order() is None:
        pytest.skip("this torch has no packed int4 product for this CPU")
    return request.param


def random_layer(in_features=256, out_features=192, dtype=torch.float32, *, bias=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(in_features, out_features, bias=bias, dtype=dtype).requires_grad_(False)


def relative_error(found, expected):
    return ((found - expected).float().norm() / expected.float().norm()).item()


@DTYPES
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_a_layer_multiplies(packs, dtype, rows):
    layer = random_layer(dtype=dtype, bias=True)
    layer.weight[3] = 0
    hidden = torch.randn(2, rows, 256, dtype=dtype)
    small = Int4Linear.quantize(layer)
    assert small.is_packed == packs
    found = small(hidden)
    assert (found.shape, found.dtype) == ((2, rows, 192), dtype)
    assert relative_error(found, layer(hidden)) < 0.12
    exact = nn.functional.linear(hidden, small.dequantize(0, 192)) + layer.bias
    assert relative_error(found, exact) < 0.01


@pytest.mark.parametrize("shape", [(4096, 4096), (1024, 4096), (4096, 14336)], ids=str)
def test_layers_of_the_11b_differ_by_less_than_documented(shape):
    out_features, in_features = shape
    weight = torch.randn(256, in_features).mul_(in_features**-0.5).bfloat16()  # some of the rows
    layer = nn.Linear(in_features, 256, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    hidden = torch.randn(8, in_features, dtype=torch.bfloat16)
    error = relative_error(Int4Linear.quantize(layer)(hidden), nn.functional.linear(hidden, weight))
    assert 0.08 < error < 0.11
    assert out_features % 64 == 0


def test_groups_are_of_128_columns_or_what_divides_the_width():
    assert [group_size(width) for width in (4096, 14336, 192, 96, 100)] == [128, 128, 64, 32, None]
    assert quantize_int4(torch.randn(4, 4096)).scale.shape == (4, 32)


def test_a_byte_holds_two_columns(packs):
    small = Int4Linear.quantize(random_layer(dtype=torch.bfloat16))
    assert small.weight.dtype == torch.uint8
    assert small.weight.numel() == 192 * 256 // 2
    assert sum(one.nbytes for one in small.buffers()) == Int4Linear.num_bytes(random_layer(), torch.bfloat16)


@pytest.mark.parametrize("rows", [(64, 64, 128), (64, 32, 96), (30, 7, 300)])
def test_layers_are_concatenated_and_stay_slices(packs, rows):
    layers = [random_layer(out_features=count) for count in rows]
    small = [Int4Linear.quantize(layer) for layer in layers]
    hidden = torch.randn(3, 256)
    before = [one(hidden) for one in small]
    fused = Int4Linear.concatenate(small)
    # torch's packing takes blocks of 64 rows with AVX-512, of 32 with AVX2.
    block = len(int4_linear._packed_order()) if packs else math.inf
    assert fused.is_packed == all(count % block == 0 for count in rows)
    torch.testing.assert_close(fused(hidden), torch.cat(before, dim=-1))
    for one, expected in zip(small, before, strict=True):
        torch.testing.assert_close(one(hidden), expected)
        assert one.weight.untyped_storage().data_ptr() == fused.weight.untyped_storage().data_ptr()


def test_weights_of_larger_groups_keep_their_values(packs):
    codes = torch.randint(0, 16, (64, 512), dtype=torch.uint8)
    scale, zero = torch.rand(64, 1), torch.rand(64, 1)
    weight = grouped_int4(codes, scale, zero)
    dequantized = Int4Linear(weight, None, torch.float32).dequantize(0, 64)
    torch.testing.assert_close(dequantized, (codes.float() - 8) * scale + zero)


def test_groups_of_another_size_are_left_to_be_quantized_anew():
    assert grouped_int4(torch.zeros(2, 32, dtype=torch.uint8), torch.ones(2, 2), torch.ones(2, 2)) is None
    weight = grouped_int4(torch.zeros(2, 64, dtype=torch.uint8), torch.ones(2, 2), torch.ones(2, 2))
    assert isinstance(weight, Int4Weight)


def test_a_torch_that_packs_in_an_unknown_way_is_not_asked_to(monkeypatch):
    monkeypatch.setattr(
        int4_linear,
        "_pack",
        lambda codes: torch.zeros(codes.shape[0], codes.shape[1] // 2, dtype=torch.uint8),
    )
    int4_linear._packed_order.cache_clear()
    try:
        assert int4_linear._packed_order() is None
    finally:
        int4_linear._packed_order.cache_clear()

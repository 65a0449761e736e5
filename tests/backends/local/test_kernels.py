"""Each Triton kernel gives what its definition in torch gives, here in Triton's interpreter."""

import json
import os
import random
import subprocess
import sys

import pytest
import torch
from torch import nn

from llama_vision.backends.local import int4_linear, kernels
from llama_vision.backends.local.int4_linear import Int4Linear, quantize_int4
from llama_vision.backends.local.kernels import TORCH_KERNELS, triton_kernels
from llama_vision.backends.local.quantization import Fp8Linear, Int8Linear

SHARED_MEMORY = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""Bytes that a block of threads may take, by compute capability (CUDA C++ Programming Guide, technical specifications)."""

with pytest.MonkeyPatch.context() as environment:
    environment.setenv("TRITON_INTERPRET", "1")
    triton_paged_attention = pytest.importorskip(
        "llama_vision.backends.local.kernels.triton_paged_attention", reason="Triton is for Linux"
    )
    TRITON_KERNELS = triton_kernels()


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def paged_attention_inputs(seed):
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    num_kv_heads, group, head_dim = (
        chance.choice([1, 2, 3]),
        chance.choice([1, 2, 4]),
        chance.choice([16, 32]),
    )
    block_size, num_seqs, num_blocks = chance.choice([16, 24, 64]), chance.randint(1, 4), chance.randint(1, 9)
    cache = torch.randn(40, 3, 2, num_kv_heads, block_size, head_dim, generator=generator)[
        :, chance.randrange(3)
    ]
    tables = torch.randint(40, (6, num_blocks), generator=generator, dtype=torch.int32)
    lens = torch.tensor(
        [chance.choice([0, 1, chance.randint(0, num_blocks * block_size)]) for _ in range(num_seqs)]
    )
    return {
        "query": torch.randn(num_seqs, num_kv_heads * group, head_dim, generator=generator),
        "cache": cache,
        "tables": tables,
        "rows": torch.tensor([[row, 1] for row in chance.sample(range(6), num_seqs)])[:, 0],
        "lens": lens,
        "counts": torch.randint(block_size + 1, (6, num_blocks), generator=generator, dtype=torch.int32)
        if chance.random() < 0.5
        else None,
    }


@pytest.mark.parametrize("seed", range(8))
def test_paged_attention(seed, monkeypatch):
    inputs = paged_attention_inputs(seed)
    monkeypatch.setattr(
        triton_paged_attention, "num_splits", lambda *_: random.Random(seed).choice([1, 2, 8])
    )
    expected = TORCH_KERNELS.paged_attention(**inputs)
    assert torch.allclose(TRITON_KERNELS.paged_attention(**inputs), expected, atol=1e-5)
    assert expected.isfinite().all()
    assert (expected[inputs["lens"] == 0] == 0).all()


@pytest.fixture
def unpacked(monkeypatch):
    """int4 weights as on a GPU, and not as torch packs them for a CPU."""
    monkeypatch.setattr(int4_linear, "_packed_order", lambda: None)


KINDS = [lambda linear: linear, Int8Linear, Int4Linear.quantize]


def fused_linear_inputs(seed):
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    num_tokens = [1, chance.randint(2, 20)][seed % 2]
    # Of several tokens not bfloat16, whose bits the interpreter's `tl.dot` takes for integers (Triton 3.9).
    dtype = [torch.float32, torch.bfloat16 if num_tokens == 1 else torch.float16][seed // 2 % 2]
    kind = KINDS[seed // 4 % 3]
    widths = [32, 64, 96, 192, 640, 1152] if kind == Int4Linear.quantize else [16, 64, 96, 192, 200]
    in_features, out_features = chance.choice(widths), chance.choice([2, 24, 96, 130])

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    linear = nn.Linear(in_features, out_features, bias=False, dtype=dtype)
    linear.weight = nn.Parameter(normal(out_features, in_features) / in_features**0.5, requires_grad=False)
    inputs = {
        "linear": kind(linear),
        "hidden": normal(num_tokens, in_features),
    }
    if chance.random() < 0.5:
        inputs |= {"norm": normal(in_features), "eps": 1e-5}
    inputs["is_swiglu"] = chance.random() < 0.5
    if chance.random() < 0.7:
        inputs["residual"] = normal(num_tokens, out_features // (2 if inputs["is_swiglu"] else 1))
    if chance.random() < 0.5:
        inputs |= {"gate": normal(1), "mask": torch.rand(num_tokens, 1, generator=generator) < 0.7}
    return inputs


@pytest.mark.parametrize("seed", range(36))
@pytest.mark.usefixtures("unpacked")
def test_fused_linear(seed):
    inputs = fused_linear_inputs(seed)
    found, expected = TRITON_KERNELS.fused_linear(**inputs), TORCH_KERNELS.fused_linear(**inputs)
    assert found.dtype == expected.dtype
    tolerance = 1e-5 if found.dtype == torch.float32 else 3e-2  # the definition rounds in between
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("unpacked")
def test_an_int4_layer_that_is_a_slice_of_a_fused_one(seed):
    """Its scales are not next to each other."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(rows, 128, generator=generator) for rows in (24, 40, 8)]
    layers = [Int4Linear(quantize_int4(weight), None, torch.float32) for weight in weights]
    fused, hidden = Int4Linear.concatenate(layers), torch.randn(1 + seed, 128, generator=generator)
    parts = torch.cat([TRITON_KERNELS.fused_linear(layer, hidden) for layer in layers], dim=-1)
    assert torch.equal(parts, TRITON_KERNELS.fused_linear(fused, hidden))
    assert torch.allclose(parts, fused(hidden), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 89, 90])
def test_kernels_compile_for_gpus_that_are_not_here_and_fit_their_shared_memory(capability):
    shared_memory = SHARED_MEMORY[capability]
    program = ["-W", "ignore", "-m", "tests.backends.local.compile_kernels", capability, shared_memory]
    command = [sys.executable, *map(str, program)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=590, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    launched = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(launched) == 21
    assert [one for one in launched if one["shared"] > shared_memory] == []


def a_launch(*_args, **_options):
    raise AssertionError("a kernel was launched")


@pytest.mark.parametrize("kind", ["bias", "other", "many tokens", "packed for a CPU"])
def test_a_linear_layer_that_there_is_no_kernel_for_takes_the_definition(kind, monkeypatch):
    module = sys.modules[TRITON_KERNELS.fused_linear.__module__]
    monkeypatch.setattr(module, "_blocks", a_launch)
    linear = nn.Linear(32, 48, bias=kind == "bias").requires_grad_(False)
    if kind == "other":
        linear = nn.Sequential(linear)
    if kind == "packed for a CPU":
        linear = Int4Linear.quantize(nn.Linear(32, 128, bias=False).requires_grad_(False))
        linear.is_packed or pytest.skip("this torch has no packed int4 product for this CPU")
    hidden = torch.randn(500 if kind == "many tokens" else 2, 32)
    assert torch.equal(TRITON_KERNELS.fused_linear(linear, hidden), linear(hidden))
    assert not issubclass(Fp8Linear, nn.Linear | Int8Linear)


@pytest.mark.parametrize("seed", range(6))
def test_rope_and_cache(seed):
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    dtype = [torch.float32, torch.bfloat16][seed % 2]
    num_tokens, num_heads, num_kv_heads = chance.randint(1, 5), chance.choice([2, 4]), chance.choice([1, 2])
    head_dim, block_size = chance.choice([16, 32]), chance.choice([16, 24])

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    heads = normal(num_tokens, num_heads + 2 * num_kv_heads, head_dim)
    pool, layer = normal(12, 3, 2, num_kv_heads, block_size, head_dim), chance.randrange(3)
    cos, sin = normal(num_tokens, head_dim), normal(num_tokens, head_dim)
    block_ids = torch.tensor(chance.sample(range(12), num_tokens))
    offsets = torch.randint(block_size, (num_tokens,), generator=generator)
    results = []
    for form in (TORCH_KERNELS, TRITON_KERNELS):
        its_heads, its_pool = heads.clone(), pool.clone()
        form.rope_and_cache(its_heads, cos, sin, its_pool[:, layer], block_ids, offsets)
        results.append((its_heads, its_pool))
    for expected, found in zip(*results, strict=True):
        tolerance = 1e-6 if dtype == torch.float32 else 3e-2
        assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
    written = (results[1][1] != pool).flatten(2).any(-1)
    assert written.sum() == num_tokens  # one layer of each token's block, and nothing else
    assert written[:, layer].sum() == num_tokens


def test_where_triton_is_missing_a_warning_says_what_to_install(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "llama_vision.backends.local.kernels.triton_fused_linear", None)
    monkeypatch.delattr(kernels, "triton_fused_linear")
    with pytest.warns(UserWarning, match=r"take longer.*pip install 'llama-vision\[cuda\]'"):
        assert triton_kernels() is None
    assert [record.name for record in caplog.records] == ["llama_vision"]

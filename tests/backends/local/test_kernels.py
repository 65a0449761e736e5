"""Each Triton kernel gives what its definition in torch gives, here in Triton's interpreter."""

import random

import pytest
import torch

from llama_vision.backends.local.kernels.paged_attention import paged_attention

with pytest.MonkeyPatch.context() as environment:
    environment.setenv("TRITON_INTERPRET", "1")
    triton_paged_attention = pytest.importorskip(
        "llama_vision.backends.local.kernels.triton_paged_attention", reason="Triton is for Linux"
    )


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
        "rows": torch.tensor(chance.sample(range(6), num_seqs)),
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
    expected = paged_attention(**inputs)
    assert torch.allclose(triton_paged_attention.paged_attention(**inputs), expected, atol=1e-5)
    assert expected.isfinite().all()
    assert (expected[inputs["lens"] == 0] == 0).all()

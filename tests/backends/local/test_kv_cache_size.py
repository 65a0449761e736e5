"""How much of a device a model takes, and what docs/local.md says of it."""

import re
from pathlib import Path

import pytest
import torch
from transformers import MllamaConfig

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.kv_cache import block_layout
from llama_vision.backends.local.kv_cache_size import (
    kv_cache_tokens,
    num_kv_cache_blocks,
    weights_bytes,
    working_bytes,
)
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError

PAGE = Path(__file__).parents[3] / "docs" / "local.md"
GIB = 2**30
ELEVEN_B = MllamaConfig(vision_config={"image_size": 560}, image_token_index=128256)
"""What transformers makes of no further options has the 11B's shape."""


def table():
    """Rows of the page: gigabytes of the card, and what its cells say by the kind of weights."""
    rows = re.findall(r"^\| (\d+) GB \| (.*) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {int(size): {None: bf16, "int8": int8} for size, bf16, int8 in rows}


def test_the_table_names_all_cards():
    assert list(table()) == [8, 12, 16, 24, 48, 80]


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_the_table_says_what_fits(quantization):
    weights = weights_bytes(ELEVEN_B, quantization, torch.bfloat16)
    for size, told in table().items():
        # The driver and the libraries take half a gigabyte of a card.
        tokens = kv_cache_tokens(ELEVEN_B, weights, size * GIB - GIB // 2) // 1000 * 1000
        assert told[quantization] == (f"{tokens:,} tokens" if tokens else "does not fit")


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_the_weights_of_the_tiny_model_take_what_is_planned(quantization):
    loaded = load_model("tiny", LocalSettings(device="cpu", dtype="bfloat16", quantization=quantization))
    # Without the tables of rotary embeddings, which are no weights.
    found = loaded.num_bytes - sum(
        buffer.nbytes for name, buffer in loaded.model.named_buffers() if name.endswith("inv_freq")
    )
    assert weights_bytes(loaded.model.config, quantization, torch.bfloat16) == pytest.approx(found, rel=0.001)


def kv_cache_blocks(available_bytes, **settings):
    layout = block_layout(ELEVEN_B.text_config)
    return num_kv_cache_blocks(
        layout,
        LocalSettings(**settings),
        max_model_len=1000,
        num_vision_tokens=6404,
        block_bytes=2**21,
        available_bytes=available_bytes,
    )


def test_the_kv_cache_takes_what_can_be_used_if_there_is_so_much():
    per_seq = 63 + 101
    assert kv_cache_blocks(2**40) == 16 * per_seq + 512 + 128 + 1
    assert (
        kv_cache_blocks(2**40, max_batch_size=2, image_cache_bytes=0, prefix_cache_bytes=0) == 2 * per_seq + 1
    )
    assert kv_cache_blocks(2 * GIB) == 1024 + 1
    assert kv_cache_blocks(0, kv_cache_bytes=3 * GIB) == 1536 + 1


def test_the_work_of_larger_batches_takes_more():
    assert working_bytes(ELEVEN_B, 64, torch.bfloat16) > working_bytes(ELEVEN_B, 16, torch.bfloat16) > GIB


def test_where_there_is_no_room_for_a_kv_cache_the_error_says_what_to_do():
    with pytest.raises(LocalModelError, match="quantization='int8'"):
        kv_cache_blocks(1000)
    with pytest.raises(LocalModelError, match="kv_cache_bytes"):
        kv_cache_blocks(2**40, kv_cache_bytes=2**21)

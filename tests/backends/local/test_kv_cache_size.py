"""How large the KV cache is: as large as is of use, if there is so much memory."""

import pytest
import torch
from transformers import MllamaConfig

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.kv_cache import block_layout
from llama_vision.backends.local.kv_cache_size import kv_cache_share, num_kv_cache_blocks
from llama_vision.core.errors import LocalModelError

GIB = 2**30
ELEVEN_B = MllamaConfig(vision_config={"image_size": 560}, image_token_index=128256)
"""What transformers makes of no further options has the 11B's shape."""


def kv_cache_blocks(available_bytes, **settings):
    layout = block_layout(ELEVEN_B.text_config)
    return num_kv_cache_blocks(
        layout,
        LocalSettings(**settings),
        max_model_len=1000,
        num_vision_tokens=6404,
        block_bytes=2**21,
        num_available=available_bytes // 2**21,
    )


def test_the_kv_cache_takes_what_can_be_used_if_there_is_so_much():
    per_seq = 63 + 101
    assert kv_cache_blocks(2**40) == 16 * per_seq + 512 + 128 + 1
    assert (
        kv_cache_blocks(2**40, max_batch_size=2, image_cache_bytes=0, prefix_cache_bytes=0) == 2 * per_seq + 1
    )
    assert kv_cache_blocks(2 * GIB) == 1024 + 1
    assert kv_cache_blocks(0, kv_cache_bytes=3 * GIB) == 1536 + 1


def test_a_gpu_is_used_up_and_a_computer_is_not():
    assert kv_cache_share(10 * GIB, GIB, torch.device("cuda")) == int(8.5 * GIB)
    assert kv_cache_share(10 * GIB, GIB, torch.device("cpu")) == int(4.5 * GIB)


def test_where_there_is_no_room_for_a_kv_cache_the_error_says_what_to_do():
    with pytest.raises(LocalModelError, match=r"smaller quantization \('int8', 'int4'\)"):
        kv_cache_blocks(1000)
    with pytest.raises(LocalModelError, match="kv_cache_bytes"):
        kv_cache_blocks(2**40, kv_cache_bytes=2**21)

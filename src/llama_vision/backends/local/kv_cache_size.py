"""The size of the KV cache: what the weights and the work of a forward pass leave of a device."""

from collections.abc import Collection
from typing import Any

import torch

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.device_map import DeviceMap, layer_ranges, modules_by_device
from llama_vision.backends.local.devices import free_memory
from llama_vision.backends.local.kv_cache import BlockLayout
from llama_vision.backends.local.memory_estimate import working_bytes
from llama_vision.core.errors import LocalModelError

_GPU_SHARE = 0.95
"""Of the free memory. The rest is what an allocator loses between tensors of different sizes."""

_CPU_SHARE = 0.5
"""Of the free memory, since other programs need it too. It is taken only where it is written to."""

_UNKNOWN_FREE_BYTES = 2**32
"""The free memory of a system that does not tell."""

_IMAGE_CACHE_BYTES = 2**30
_PREFIX_CACHE_BYTES = 2**28
"""What is planned for the caches where the settings don't limit them; they may take all that no sequence uses."""

_MIN_TOKENS = 256
"""A KV cache with room for less is of no use."""


def block_bytes_of(layout: BlockLayout, modules: Collection[str], dtype: torch.dtype) -> int:
    """Memory of a block on a device that has these modules."""
    return sum(layout.of_layers(its).num_elements for its in layer_ranges(modules)) * dtype.itemsize


def num_available_blocks(
    config: Any, layout: BlockLayout, max_num_seqs: int, dtype: torch.dtype, device_map: DeviceMap
) -> int:
    """The blocks for which each device has room, once the weights are loaded."""
    counts: list[int] = []
    for device, modules in modules_by_device(device_map).items():
        if block_bytes := block_bytes_of(layout, modules, dtype):
            free = free_memory(device)
            working = working_bytes(config, max_num_seqs, dtype, device, modules)
            share = kv_cache_share(_UNKNOWN_FREE_BYTES if free is None else free, working, device)
            counts.append(share // block_bytes)
    return min(counts)


def kv_cache_share(free_bytes: int, working: int, device: torch.device) -> int:
    """What the KV cache may take of the memory that is free beside the weights."""
    if device.type == "cpu":
        return int((free_bytes - working) * _CPU_SHARE)
    return int(free_bytes * _GPU_SHARE) - working


def num_useful_blocks(
    layout: BlockLayout,
    settings: LocalSettings,
    *,
    max_model_len: int,
    num_vision_tokens: int,
    block_bytes: int,
) -> int:
    """Blocks that can ever be of use, or those of `kv_cache_bytes` where it is set; arguments as of `num_kv_cache_blocks`."""
    if settings.kv_cache_bytes is not None:
        return settings.kv_cache_bytes // block_bytes
    per_seq = layout.num_blocks(max_model_len) + layout.num_vision_blocks(num_vision_tokens)
    caches = _or_default(settings.image_cache_bytes, _IMAGE_CACHE_BYTES)
    caches += _or_default(settings.prefix_cache_bytes, _PREFIX_CACHE_BYTES)
    return settings.max_batch_size * per_seq + caches // block_bytes


def min_blocks(layout: BlockLayout, max_model_len: int, num_vision_tokens: int) -> int:
    """Blocks of a short conversation about an image of the most tiles; with fewer a model is not loaded."""
    return layout.num_blocks(min(max_model_len, _MIN_TOKENS)) + layout.num_vision_blocks(num_vision_tokens)


def num_kv_cache_blocks(
    layout: BlockLayout,
    settings: LocalSettings,
    *,
    max_model_len: int,
    num_vision_tokens: int,
    block_bytes: int,
    num_available: int,
) -> int:
    """Decide the size of the KV cache: as much as can ever be used, if there is so much.

    Args:
        layout: Of the blocks.
        settings: `kv_cache_bytes` decides where it is set.
        max_model_len: Tokens of a sequence at most.
        num_vision_tokens: Of an image at most.
        block_bytes: Memory of a block, on all devices together.
        num_available: Blocks that there is room for.

    Returns:
        Blocks, with the null block.

    Raises:
        LocalModelError: There is no room for a short conversation; the text says what to do.
    """
    num_blocks = num_useful_blocks(
        layout,
        settings,
        max_model_len=max_model_len,
        num_vision_tokens=num_vision_tokens,
        block_bytes=block_bytes,
    )
    if settings.kv_cache_bytes is None:
        num_blocks = min(num_blocks, num_available)
    minimum = min_blocks(layout, max_model_len, num_vision_tokens)
    if num_blocks < minimum:
        raise LocalModelError(_too_small_message(settings, minimum * block_bytes, num_blocks * block_bytes))
    return num_blocks + 1


def _too_small_message(settings: LocalSettings, minimum: int, found: int) -> str:
    if settings.kv_cache_bytes is not None:
        return f"LocalSettings(kv_cache_bytes=...) has to be {minimum:,} or more for this model, and is {settings.kv_cache_bytes:,}."
    return (
        f"The weights leave {max(found, 0):,} bytes of memory for the KV cache, and {minimum:,} are the least. Free memory of "
        "the device, or give LocalSettings a smaller quantization ('int8', 'int4') or max_batch_size."
    )


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value

"""The size of the KV cache: what the weights and the work of a forward pass leave of a device."""

import os
from typing import Any, cast

import torch
from torch import nn
from transformers import MllamaForConditionalGeneration

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.kv_cache import BlockLayout, block_layout
from llama_vision.backends.local.quantization import is_quantized_layer
from llama_vision.backends.local.scheduler import MAX_PREFILL_TOKENS
from llama_vision.core.errors import LocalModelError

_GPU_SHARE = 0.95
"""Of the free memory. The rest is what an allocator loses between tensors of different sizes."""

_CPU_SHARE = 0.5
"""Of the free memory, since other programs need it too. It is taken only where it is written to."""

_UNKNOWN_FREE_BYTES = 2**32
"""The free memory of a system that does not tell."""

_RUNTIME_BYTES = 2**30
"""Workspaces of libraries, and CUDA graphs."""

_ENCODER_BYTES = 2**30
_MAX_ENCODER_BATCH = 8

IMAGE_CACHE_BYTES = 2**30
PREFIX_CACHE_BYTES = 2**28
"""What is planned for the caches where the settings don't limit them; they may take all that no sequence uses."""

_MIN_TOKENS = 256
"""A KV cache with room for less is of no use."""


def kv_cache_tokens(
    config: Any,
    weights: int,
    free_bytes: int,
    *,
    max_num_seqs: int = 16,
    dtype: torch.dtype = torch.bfloat16,
) -> int:
    """Tokens that the KV cache of a GPU with so much free memory holds beside one image of the most tiles.

    Args:
        config: transformers' MllamaConfig.
        weights: From `weights_bytes`.
        free_bytes: Free memory of the GPU.
        max_num_seqs: `max_batch_size` of `LocalSettings`.
        dtype: Of weights and activations.

    Returns:
        Tokens; 0 where the model does not fit, or the KV cache is of no use.
    """
    working = working_bytes(config, max_num_seqs, dtype)
    left = int((free_bytes - weights) * _GPU_SHARE) - working
    layout = block_layout(config.text_config)
    vision = config.vision_config
    num_patches = (vision.image_size // vision.patch_size) ** 2 + 1
    num_blocks = left // (layout.num_elements * dtype.itemsize)
    num_blocks -= layout.num_vision_blocks(num_patches * vision.max_num_tiles)
    num_tokens = num_blocks * layout.block_size
    return num_tokens if num_tokens >= _MIN_TOKENS else 0


def weights_bytes(config: Any, quantization: str | None, dtype: torch.dtype) -> int:
    """Memory of a model's weights, from its config."""
    with torch.device("meta"):
        model: Any = MllamaForConditionalGeneration(config)
    total = 0
    for name, module in model.named_modules():
        quantized = quantization is not None and is_quantized_layer(name, module, quantization)
        for parameter in module.parameters(recurse=False):
            total += parameter.numel() * (1 if quantized else dtype.itemsize)
        if quantized:  # a scale for each row
            total += cast("nn.Linear", module).out_features * (4 if quantization == "fp8" else dtype.itemsize)
    return total


def encoder_batch_size(vision_config: Any, dtype: torch.dtype) -> int:
    """How many images to encode at a time."""
    return max(1, min(_ENCODER_BYTES // _encoder_bytes_per_image(vision_config, dtype), _MAX_ENCODER_BATCH))


def _encoder_bytes_per_image(vision_config: Any, dtype: torch.dtype) -> int:
    """Activations of a layer, and the intermediate layers' outputs that are kept."""
    num_patches = (vision_config.image_size // vision_config.patch_size) ** 2 + 1
    kept = len(vision_config.intermediate_layers_indices)
    width = (kept + 8) * vision_config.hidden_size + 2 * vision_config.intermediate_size
    return num_patches * vision_config.max_num_tiles * width * dtype.itemsize


def working_bytes(config: Any, max_num_seqs: int, dtype: torch.dtype) -> int:
    """Activations of the largest forward passes, of the vision encoder or the text decoder, and logits. An estimate."""
    text, vision = config.text_config, config.vision_config
    encoder = encoder_batch_size(vision, dtype) * _encoder_bytes_per_image(vision, dtype)
    decoder = MAX_PREFILL_TOKENS * (6 * text.hidden_size + 3 * text.intermediate_size) * dtype.itemsize
    logits = 4 * max_num_seqs * text.vocab_size * torch.float32.itemsize
    return _RUNTIME_BYTES + max(encoder, decoder) + logits


def available_bytes(config: Any, max_num_seqs: int, dtype: torch.dtype, device: torch.device) -> int:
    """What the KV cache may take of a device whose weights are loaded."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        return int(_free_host_bytes() * _CPU_SHARE)
    return int(free * _GPU_SHARE) - working_bytes(config, max_num_seqs, dtype)


def num_kv_cache_blocks(
    layout: BlockLayout,
    settings: LocalSettings,
    *,
    max_model_len: int,
    num_vision_tokens: int,
    block_bytes: int,
    available_bytes: int,
) -> int:
    """Decide the size of the KV cache: as much as can ever be used, if there is so much.

    Args:
        layout: Of the blocks.
        settings: `kv_cache_bytes` decides where it is set.
        max_model_len: Tokens of a sequence at most.
        num_vision_tokens: Of an image at most.
        block_bytes: Memory of a block.
        available_bytes: What the KV cache may take of the device.

    Returns:
        Blocks, with the null block.

    Raises:
        LocalModelError: There is no room for a short conversation; the text says what to do.
    """
    if settings.kv_cache_bytes is None:
        per_seq = layout.num_blocks(max_model_len) + layout.num_vision_blocks(num_vision_tokens)
        caches = _or_default(settings.image_cache_bytes, IMAGE_CACHE_BYTES)
        caches += _or_default(settings.prefix_cache_bytes, PREFIX_CACHE_BYTES)
        num_blocks = min(
            settings.max_batch_size * per_seq + caches // block_bytes, available_bytes // block_bytes
        )
    else:
        num_blocks = settings.kv_cache_bytes // block_bytes
    minimum = layout.num_blocks(min(max_model_len, _MIN_TOKENS)) + layout.num_vision_blocks(num_vision_tokens)
    if num_blocks < minimum:
        raise LocalModelError(_too_small_message(settings, minimum * block_bytes, num_blocks * block_bytes))
    return num_blocks + 1


def _too_small_message(settings: LocalSettings, minimum: int, found: int) -> str:
    if settings.kv_cache_bytes is not None:
        return f"LocalSettings(kv_cache_bytes=...) has to be {minimum:,} or more for this model, and is {settings.kv_cache_bytes:,}."
    return (
        f"The weights leave {max(found, 0):,} bytes of the device for the KV cache, and {minimum:,} are the least. Free memory of "
        "the device, or give LocalSettings quantization='int8' or a smaller max_batch_size."
    )


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value


def _free_host_bytes() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, macOS
        return _UNKNOWN_FREE_BYTES

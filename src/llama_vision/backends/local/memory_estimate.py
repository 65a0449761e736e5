"""Estimate of the memory that weights and activations take, from a model's configuration alone."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import torch

from llama_vision.backends.local.device_map import LM_HEAD, VISION_MODEL, layer_indices, module_of
from llama_vision.backends.local.quantization import quantized_type
from llama_vision.backends.local.scheduler import MAX_PREFILL_TOKENS

_RUNTIME_BYTES = 2**30
"""Of a GPU: workspaces of libraries, and CUDA graphs."""

_LOGITS_COPIES = 10
"""Float32 tensors of the logits' shape that sampling has at a time, where a sort takes the most."""

_ENCODER_BYTES = 2**30
_MAX_ENCODER_BATCH = 8


def weights_bytes(model: Any, quantization: str | None, dtype: torch.dtype) -> dict[str, int]:
    """Memory of the weights of each module of a device map.

    Args:
        model: A `Mllama`, on any device; `meta` will do.
        quantization: As in `LocalSettings`, but for `auto`.
        dtype: Of what is not quantized.
    """
    sizes: dict[str, int] = defaultdict(int)
    for name, module in model.named_modules():
        if (its_module := module_of(name)) is None:
            continue
        if kind := quantized_type(name, module, quantization):
            sizes[its_module] += kind.num_bytes(module, dtype)
        else:
            sizes[its_module] += sum(one.numel() for one in module.parameters(recurse=False)) * dtype.itemsize
    return sizes


def working_bytes(
    config: Any, max_num_seqs: int, dtype: torch.dtype, device: torch.device, modules: Collection[str]
) -> int:
    """Memory of the largest forward passes, of the vision encoder or the text decoder, and of logits.

    Args:
        config: transformers' MllamaConfig.
        max_num_seqs: `max_batch_size` of `LocalSettings`.
        dtype: Of activations.
        device: A GPU takes workspaces, too.
        modules: Those of the device map that are there.
    """
    text, vision = config.text_config, config.vision_config
    encoder = decoder = logits = 0
    if VISION_MODEL in modules:
        encoder = encoder_batch_size(vision, dtype) * _encoder_bytes_per_image(vision, dtype)
    if layer_indices(modules):
        decoder = MAX_PREFILL_TOKENS * (6 * text.hidden_size + 3 * text.intermediate_size) * dtype.itemsize
    if LM_HEAD in modules:
        logits = _LOGITS_COPIES * max_num_seqs * text.vocab_size * torch.float32.itemsize
    return max(encoder, decoder) + logits + (0 if device.type == "cpu" else _RUNTIME_BYTES)


def encoder_batch_size(vision_config: Any, dtype: torch.dtype) -> int:
    """How many images to encode at a time."""
    return max(1, min(_ENCODER_BYTES // _encoder_bytes_per_image(vision_config, dtype), _MAX_ENCODER_BATCH))


def num_vision_tokens(vision_config: Any) -> int:
    """Vision tokens of an image with all its tiles."""
    return ((vision_config.image_size // vision_config.patch_size) ** 2 + 1) * vision_config.max_num_tiles


def _encoder_bytes_per_image(vision_config: Any, dtype: torch.dtype) -> int:
    """Activations of a layer, and the intermediate layers' outputs that are kept."""
    kept = len(vision_config.intermediate_layers_indices)
    width = (kept + 8) * vision_config.hidden_size + 2 * vision_config.intermediate_size
    return num_vision_tokens(vision_config) * width * dtype.itemsize

"""Weights: read one by one, quantized, and moved to the device, so that a model is never in memory twice."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from llama_vision.backends.local.checkpoints.checkpoint import Checkpoint
from llama_vision.backends.local.checkpoints.lora import LoraAdapter
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.device_map import DeviceMap, module_of
from llama_vision.backends.local.int4_linear import Int4Linear
from llama_vision.backends.local.load_errors import check_weights
from llama_vision.backends.local.mllama import Mllama
from llama_vision.backends.local.quantization import quantized_type

_EMBEDDING, _LM_HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
_SMALL_MODEL_PARAMETERS = 1_000_000_000


def load_weights(
    name: str,
    checkpoint: Checkpoint,
    adapter: LoraAdapter | None,
    device_map: DeviceMap,
    settings: LocalSettings,
    *,
    shows_progress: bool,
) -> Mllama:
    """Build the model and fill it weight by weight: at most one layer is in memory beside what stays there.

    Args:
        name: Of the checkpoint, for errors.
        checkpoint: Gives the weights.
        adapter: Merged into them.
        device_map: Where they go.
        settings: `dtype` and `quantization` of them.
        shows_progress: With a bar on stderr.

    Returns:
        The model on its devices, in evaluation mode.

    Raises:
        LocalModelError: Weights are missing, or have another shape than the configuration says.
    """
    shapes = dict(checkpoint.shapes) | dict(adapter.shapes if adapter else {})
    model: Any = empty_model(checkpoint.config, shapes)
    parameters = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    if _is_tied(checkpoint.config, shapes):
        shapes[_LM_HEAD] = shapes[_EMBEDDING]
    check_weights(name, parameters, shapes)
    dtype = weights_dtype(model, device_map.values(), settings)
    total = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    # Without `disable`, TQDM_DISABLE decides.
    hidden: dict[str, Any] = {} if shows_progress else {"disable": True}
    with tqdm(total=total, desc="Loading weights", unit="B", unit_scale=True, **hidden) as progress:
        modules = {path: module_of(path) for path, _ in model.named_modules()}  # what is replaced is freed
        for path, its_module in modules.items():
            if its_module is None:
                continue
            module, device = model.get_submodule(path), device_map[its_module]
            num_bytes = sum(one.numel() for one in module.parameters(recurse=False)) * dtype.itemsize
            kind = quantized_type(path, module, settings.quantization)
            quantized = (
                _stored_int4(path, module, checkpoint, adapter, dtype, device) if kind is Int4Linear else None
            )
            if quantized is None:
                _fill(name, path, module, checkpoint, adapter, dtype, device)
                quantized = kind and kind.quantize(module)
            progress.update(num_bytes)
            if quantized is not None:
                parent, _, attribute = path.rpartition(".")
                setattr(model.get_submodule(parent), attribute, quantized)
    if adapter:
        adapter.check_applied()
    return model


def empty_model(config: Any, shapes: Mapping[str, tuple[int, ...] | None]) -> Mllama:
    """Build a model without weights, with the vocabulary that the weights have: fine-tunes may have added tokens."""
    head, embedding = shapes.get(_LM_HEAD), shapes.get(_EMBEDDING)
    if _is_tied(config, shapes):
        head = embedding
    if head:
        config.text_config.vocab_size = head[0]
    with torch.device("meta"):
        return Mllama(config, num_embeddings=embedding[0] if embedding else None).eval()


def weights_dtype(model: Mllama, devices: Collection[torch.device], settings: LocalSettings) -> torch.dtype:
    """Choose the dtype. A CPU runs a small model fastest in float32; a large one would not fit."""
    if settings.quantization == "fp8":
        return torch.bfloat16
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if all(device.type == "cpu" for device in devices) and num_parameters < _SMALL_MODEL_PARAMETERS:
        return torch.float32
    stored = model.config.dtype or model.config.text_config.dtype or "bfloat16"
    return stored if isinstance(stored, torch.dtype) else getattr(torch, stored)


def _fill(
    name: str,
    path: str,
    module: nn.Module,
    checkpoint: Checkpoint,
    adapter: LoraAdapter | None,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    for key, parameter in list(module.named_parameters(recurse=False)):
        full = f"{path}.{key}"
        stored = _EMBEDDING if full == _LM_HEAD and full not in checkpoint.shapes else full
        weight = checkpoint.read(stored, dtype, device)
        if adapter:
            weight = adapter.apply(full, weight)
        check_weights(name, {full: tuple(parameter.shape)}, {full: tuple(weight.shape)})
        module.register_parameter(key, nn.Parameter(weight, requires_grad=False))


def _stored_int4(
    path: str,
    module: nn.Module,
    checkpoint: Checkpoint,
    adapter: LoraAdapter | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Int4Linear | None:
    """Take a layer's weight as it is stored where that is in four bits, so that nothing is lost."""
    full = f"{path}.weight"
    if getattr(module, "bias", None) is not None or (adapter and adapter.applies_to(full)):
        return None
    weight = checkpoint.read_int4(full, device)
    if weight is None or weight.codes.shape != module.weight.shape:
        return None  # a wrong shape is reported where it is read again
    return Int4Linear(weight, None, dtype)


def _is_tied(config: Any, shapes: Mapping[str, Any]) -> bool:
    ties = getattr(config, "tie_word_embeddings", False) or config.text_config.tie_word_embeddings
    return bool(ties) and _LM_HEAD not in shapes and _EMBEDDING in shapes

"""How much memory a model takes on a device, computed before any weight is read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.kv_cache_size import IMAGE_CACHE_BYTES, PREFIX_CACHE_BYTES
from llama_vision.backends.local.quantization import is_quantized_layer
from llama_vision.backends.local.weights import empty_model, weights_dtype
from llama_vision.core.errors import LocalModelError

QUANTIZATIONS = (None, "int8")
"""What `quantization="auto"` takes from, best first."""

_GB = 1e9
_DEFAULT_PLANNED_TOKENS = 4096
"""Tokens of a sequence that the plan counts with where `max_model_len` is not set: few fill a context of 131,072."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a model takes, by what takes them.

    Attributes:
        kv_cache: Keys and values of `max_batch_size` sequences of `max_model_len`, or of 4,096 tokens where it is not set.
        caches: Encoder cache and prefix cache when they are full.
        working: Activations, estimated.
        free: On the device; None where it can't be known.
    """

    settings: LocalSettings
    device: torch.device
    weights: int
    kv_cache: int
    caches: int
    working: int
    free: int | None

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.caches + self.working

    @property
    def fits(self) -> bool:
        """Whether all of it fits, as far as is known."""
        return self.free is None or self.total <= self.free

    @property
    def can_load(self) -> bool:
        """Whether weights and activations fit, with no room for a cache."""
        return self.free is None or self.weights + self.working <= self.free

    def __str__(self) -> str:
        free = "unknown" if self.free is None else _gb(self.free)
        return (
            f"weights {_gb(self.weights)} + KV cache {_gb(self.kv_cache)} + image and prefix caches {_gb(self.caches)} + activations "
            f"{_gb(self.working)} = {_gb(self.total)}, free on {self.device}: {free}"
        )


def plan_memory(config: Any, device: torch.device, settings: LocalSettings) -> MemoryPlan:
    """Plan from a checkpoint's MllamaConfig. `quantization="auto"` becomes the best that fits, else the smallest.

    The weights of a checkpoint that is quantized itself count in `dtype`, since they are dequantized where they are loaded.
    """
    free = free_memory(device)
    if settings.quantization != "auto":
        return _plan(config, device, settings, free)
    plans = [_plan(config, device, replace(settings, quantization=one), free) for one in QUANTIZATIONS]
    return next((plan for plan in plans if plan.fits), plans[-1])


def check_memory(model: str, config: Any, device: torch.device, settings: LocalSettings) -> MemoryPlan:
    """Plan, and refuse what can't be loaded before its weights are downloaded or read.

    Raises:
        LocalModelError: Weights and activations don't fit; the text says what would.
    """
    plan = plan_memory(config, device, settings)
    if not plan.can_load:
        raise LocalModelError(
            f"{model} does not fit into the memory of {device}: {plan}. {advice(config, plan)}"
        )
    return plan


def advice(config: Any, plan: MemoryPlan) -> str:
    """Say what would fit: another quantization, batch size or context, or another machine."""
    settings = plan.settings
    smaller = [
        replace(settings, quantization=one) for one in QUANTIZATIONS if one and one != settings.quantization
    ]
    smaller += [
        replace(one, max_batch_size=size, max_model_len=length, image_cache_bytes=0, prefix_cache_bytes=0)
        for one in (settings, *smaller)
        for size in (4, 1)
        for length in (2048, 1024)
    ]
    for one in smaller:
        if _plan(config, plan.device, one, plan.free).fits:
            changed = {
                name: getattr(one, name)
                for name in LocalSettings.__slots__
                if getattr(one, name) != getattr(settings, name)
            }
            return (
                "This fits: LocalSettings("
                + ", ".join(f"{name}={value!r}" for name, value in changed.items())
                + ")."
            )
    return (
        "No setting makes it fit here. Take a device with more memory, or let a server run it: SGLang spreads a model over several GPUs "
        "(`python -m sglang.launch_server --model-path MODEL --tp 4`, then provider='sglang')."
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where it can't be known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _physical_memory()
    return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024


def _physical_memory() -> int | None:
    """All of the memory, where the system does not say what is free."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _plan(config: Any, device: torch.device, settings: LocalSettings, free: int | None) -> MemoryPlan:
    model = empty_model(config, {})
    dtype = weights_dtype(model, device, settings)
    text, vision, batch = config.text_config, config.vision_config, settings.max_batch_size
    length = settings.max_model_len or min(text.max_position_embeddings, _DEFAULT_PLANNED_TOKENS)
    num_layers = text.num_hidden_layers - len(text.cross_attention_layers)
    kv_width = 2 * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads) * dtype.itemsize
    tile_tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    image_tokens = vision.max_num_tiles * tile_tokens
    return MemoryPlan(
        settings=settings,
        device=device,
        weights=_weights_bytes(model, dtype, settings.quantization),
        kv_cache=batch * kv_width * (num_layers * length + len(text.cross_attention_layers) * image_tokens),
        caches=_caches(settings),
        # Of an image the vision MLP's, some copies of them, and the logits of a batch in float32.
        working=4 * image_tokens * vision.intermediate_size * dtype.itemsize + 8 * batch * text.vocab_size,
        free=free,
    )


def _caches(settings: LocalSettings) -> int:
    image, prefix = settings.image_cache_bytes, settings.prefix_cache_bytes
    return (IMAGE_CACHE_BYTES if image is None else image) + (
        PREFIX_CACHE_BYTES if prefix is None else prefix
    )


def _weights_bytes(model: Any, dtype: torch.dtype, quantization: str | None) -> int:
    modules: Mapping[str, Any] = dict(model.named_modules())
    return sum(
        parameter.numel()
        * (
            1
            if quantization and key == "weight" and is_quantized_layer(path, module, quantization)
            else dtype.itemsize
        )
        for path, module in modules.items()
        for key, parameter in module.named_parameters(recurse=False)
    )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / _GB:.1f} GB"

"""How much memory a model takes on a device, computed before any weight is read."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from llama_vision.backends.local.config import SEVERAL_GPUS, LocalSettings
from llama_vision.backends.local.devices import free_memory
from llama_vision.backends.local.kv_cache import block_layout
from llama_vision.backends.local.kv_cache_size import kv_cache_share, min_blocks, num_useful_blocks
from llama_vision.backends.local.memory_estimate import num_vision_tokens, weights_bytes, working_bytes
from llama_vision.backends.local.weights import empty_model, weights_dtype
from llama_vision.core.errors import LocalModelError

QUANTIZATIONS = (None, "int8", "int4")
"""What `quantization="auto"` takes from, best first."""

_GB = 1e9
_DEFAULT_PLANNED_TOKENS = 4096
"""Tokens of a sequence that the plan counts with where `max_model_len` is not set: few fill a context of 131,072."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a model takes, by what takes them.

    Attributes:
        kv_cache: `kv_cache_bytes`, else `max_batch_size` sequences of `max_model_len` (of 4,096 tokens where it is not set) with
            an image each, and full image and prefix caches.
        min_kv_cache: A short conversation about one image.
        working: Activations and what a runtime takes, estimated.
        free: On the device; None where it can't be known.
        token_bytes: Of the KV cache.
        image_bytes: Of an image of the most tiles in the KV cache.
    """

    settings: LocalSettings
    device: torch.device
    weights: int
    kv_cache: int
    min_kv_cache: int
    working: int
    free: int | None
    token_bytes: int
    image_bytes: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.working

    @property
    def fits(self) -> bool:
        """Whether all of it fits, as far as is known."""
        return self._leaves(self.kv_cache)

    @property
    def can_load(self) -> bool:
        """Whether there is room for a short conversation."""
        return self._leaves(self.min_kv_cache)

    @property
    def max_kv_cache_tokens(self) -> int | None:
        """Tokens that the KV cache has room for beside one image of the most tiles; None where it can't be known."""
        if self.free is None:
            return None
        return max(0, self._left(self.free) - self.image_bytes) // self.token_bytes if self.can_load else 0

    def __str__(self) -> str:
        needed = (
            f"weights {_gb(self.weights)} + activations {_gb(self.working)} + KV cache {_gb(self.kv_cache)} = "
            f"{_gb(self.total)}, free on {self.device}: "
        )
        if self.free is None:
            return f"{needed}unknown"
        return f"{needed}{_gb(self.free)}, of which {_gb(max(0, self._left(self.free)))} are for the KV cache"

    def _leaves(self, kv_cache: int) -> bool:
        return self.free is None or kv_cache <= self._left(self.free)

    def _left(self, free: int) -> int:
        return kv_cache_share(free - self.weights, self.working, self.device)


def plan_memory(config: Any, device: torch.device, settings: LocalSettings) -> MemoryPlan:
    """Plan from a checkpoint's MllamaConfig. `quantization="auto"` becomes the best that fits, else the smallest.

    The weights of a checkpoint that is quantized itself count in `dtype`, since they are dequantized where they are loaded.
    """
    model, free = empty_model(config, {}), free_memory(device)
    if settings.quantization != "auto":
        return _plan(model, device, settings, free)
    plans = [_plan(model, device, replace(settings, quantization=one), free) for one in QUANTIZATIONS]
    return next((plan for plan in plans if plan.fits), plans[-1])


def check_memory(model: str, config: Any, device: torch.device, settings: LocalSettings) -> MemoryPlan:
    """Plan, and refuse what can't be loaded before its weights are downloaded or read.

    Raises:
        LocalModelError: There is no room for it; the text says what would fit.
    """
    plan = plan_memory(config, device, settings)
    if not plan.can_load:
        raise LocalModelError(
            f"{model} does not fit into the memory of {device}: {plan}. {advice(config, plan)}"
        )
    return plan


def advice(config: Any, plan: MemoryPlan) -> str:
    """Say what would fit: another quantization, batch size or context, or another machine."""
    model, settings = empty_model(config, {}), plan.settings
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
        if _plan(model, plan.device, one, plan.free).fits:
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
    return f"No setting makes it fit here. Take a device with more memory, or let a server run it. {SEVERAL_GPUS}"


def _plan(model: Any, device: torch.device, settings: LocalSettings, free: int | None) -> MemoryPlan:
    config, dtype = model.config, weights_dtype(model, device, settings)
    layout, image_tokens = block_layout(config.text_config), num_vision_tokens(config.vision_config)
    block_bytes = layout.num_elements * dtype.itemsize
    context_window = config.text_config.max_position_embeddings
    length = min(settings.max_model_len or _DEFAULT_PLANNED_TOKENS, context_window)
    num_blocks = num_useful_blocks(
        layout, settings, max_model_len=length, num_vision_tokens=image_tokens, block_bytes=block_bytes
    )
    return MemoryPlan(
        settings=settings,
        device=device,
        weights=weights_bytes(model, settings.quantization, dtype),
        kv_cache=num_blocks * block_bytes,
        min_kv_cache=min_blocks(layout, length, image_tokens) * block_bytes,
        working=working_bytes(config, settings.max_batch_size, dtype, device),
        free=free,
        token_bytes=layout.num_token_elements * dtype.itemsize,
        image_bytes=layout.num_vision_blocks(image_tokens) * block_bytes,
    )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / _GB:.1f} GB"

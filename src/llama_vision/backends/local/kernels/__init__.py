"""Kernels of the decode step: each as its definition in torch, and in Triton for NVIDIA GPUs.

The Triton form is optional: Triton comes with torch's builds for CUDA, and is not imported anywhere else.
"""

import logging
import warnings
from dataclasses import dataclass

from llama_vision.backends.local.kernels.fused_linear import FusedLinear, fused_linear
from llama_vision.backends.local.kernels.paged_attention import PagedAttention, paged_attention
from llama_vision.backends.local.kernels.rope_and_cache import RopeAndCache, rope_and_cache

_logger = logging.getLogger("llama_vision")


@dataclass(frozen=True, slots=True)
class Kernels:
    """One form of all kernels."""

    fused_linear: FusedLinear
    rope_and_cache: RopeAndCache
    paged_attention: PagedAttention


TORCH_KERNELS = Kernels(fused_linear, rope_and_cache, paged_attention)
"""The definitions."""


def triton_kernels() -> Kernels | None:
    """Get the kernels in Triton; None, with a warning, where Triton is not installed."""
    try:
        from llama_vision.backends.local.kernels import (  # noqa: PLC0415 - as said above
            triton_fused_linear,
            triton_paged_attention,
            triton_rope_and_cache,
        )
    except ImportError as error:
        warn_slower(f"Triton is not installed ({error}): pip install 'llama-vision[cuda]'")
        return None
    return Kernels(
        triton_fused_linear.fused_linear,
        triton_rope_and_cache.rope_and_cache,
        triton_paged_attention.paged_attention,
    )


def warn_slower(reason: str) -> None:
    """Warn that decode steps run without kernels and CUDA graphs."""
    text = (
        f"Decode steps on this GPU run without Triton kernels and CUDA graphs, so they take longer. {reason}"
    )
    _logger.warning(text)
    warnings.warn(text, stacklevel=2)

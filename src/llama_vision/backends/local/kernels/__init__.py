"""Kernels of the decode step: each as its definition in torch, and in Triton for NVIDIA GPUs.

The Triton form is optional: Triton comes with torch's builds for CUDA, and is not imported anywhere else.
"""

import logging
import warnings

from llama_vision.backends.local.kernels.paged_attention import PagedAttention

_logger = logging.getLogger("llama_vision")


def triton_paged_attention() -> PagedAttention | None:
    """Get paged attention in Triton; None, with a warning, where Triton is not installed."""
    try:
        from llama_vision.backends.local.kernels import triton_paged_attention as module  # noqa: PLC0415 - as said above
    except ImportError as error:
        warn_slower(f"Triton is not installed ({error}): pip install 'llama-vision[cuda]'")
        return None
    return module.paged_attention


def warn_slower(reason: str) -> None:
    """Warn that decode steps run without kernels and CUDA graphs."""
    text = (
        f"Decode steps on this GPU run without Triton kernels and CUDA graphs, so they take longer. {reason}"
    )
    _logger.warning(text)
    warnings.warn(text, stacklevel=2)

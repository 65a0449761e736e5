"""A linear layer and what surrounds it: RMSNorm before it, SwiGLU, gate and residual after it."""

from typing import Protocol

import torch
from torch import nn
from torch.nn import functional


class FusedLinear(Protocol):
    """residual + gate * swiglu(linear(rms_norm(hidden))), of which all but `linear` may be left out.

    Args:
        linear: in_features -> out_features; of any kind, quantized or not.
        hidden: (tokens, in_features).
        norm: Weight of the RMSNorm, (in_features,).
        eps: Of the RMSNorm.
        is_swiglu: Whether the output is silu of its first half times its second half.
        gate: Factor of what is added to `residual`, (1,).
        mask: Of tokens that get nothing but `residual`, false, (tokens, 1).
        residual: (tokens, out_features).

    Returns:
        (tokens, out_features), half of these with `is_swiglu`.
    """

    def __call__(
        self,
        linear: nn.Module,
        hidden: torch.Tensor,
        *,
        norm: torch.Tensor | None = None,
        eps: float = 0.0,
        is_swiglu: bool = False,
        gate: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See the class."""
        ...


def fused_linear(
    linear: nn.Module,
    hidden: torch.Tensor,
    *,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    is_swiglu: bool = False,
    gate: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition of `FusedLinear`."""
    if norm is not None:
        hidden = functional.rms_norm(hidden, norm.shape, norm, eps)
    output: torch.Tensor = linear(hidden)
    if is_swiglu:
        first, second = output.chunk(2, dim=-1)
        output = functional.silu(first) * second
    if gate is not None:
        output = gate * output
    if mask is not None:
        output = output.where(mask, 0.0)
    return output if residual is None else residual + output

"""Fused linear layers in Triton, for the few tokens of a decode step, whose time is that of reading the weights."""

# Triton has no type stubs, and its language is not Python's.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportArgumentType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# ruff: noqa: ANN001, ANN202, N803, PLR0917

import torch
import triton
import triton.language as tl
from torch import nn

from llama_vision.backends.local.kernels.fused_linear import fused_linear as torch_fused_linear
from llama_vision.backends.local.quantization import Int8Linear

_MAX_TOKENS = 64
"""Beyond these a pass is no longer bound by reading weights, and cuBLAS is faster."""

_MIN_DOT = 16
"""The smallest dimension of `tl.dot`."""


@triton.jit
def _fused_linear(  # noqa: C901, PLR0912, PLR0915 - one kernel, whose branches are decided when it is compiled
    hidden,
    weight,
    scale,
    norm,
    gate,
    mask,
    residual,
    output,
    num_tokens,
    in_features,
    out_features,
    eps,
    HAS_SCALE: tl.constexpr,
    HAS_NORM: tl.constexpr,
    IS_SWIGLU: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    USE_DOT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """BLOCK_N outputs of all tokens. One token takes sums in float32, several take tensor cores, weights on the left.

    The factor of RMSNorm is known when all inputs were read, so it is applied to the result.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    is_output, is_token = n < out_features, m < num_tokens
    rows = weight + n.to(tl.int64)[:, None] * in_features
    second_rows = rows + out_features.to(tl.int64) * in_features
    squares = tl.zeros((BLOCK_K, BLOCK_M), tl.float32)
    width: tl.constexpr = BLOCK_M if USE_DOT else BLOCK_K
    first = tl.zeros((BLOCK_N, width), tl.float32)
    second = tl.zeros((BLOCK_N, width), tl.float32)
    for start in range(0, in_features, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        is_input = k < in_features
        is_weight = is_output[:, None] & is_input[None, :]
        x = tl.load(
            hidden + m[None, :] * in_features + k[:, None],
            mask=is_token[None, :] & is_input[:, None],
            other=0.0,
        )
        if HAS_NORM:
            wide = x.to(tl.float32)
            squares += wide * wide
            factor = tl.load(norm + k, mask=is_input, other=0.0).to(tl.float32)
            x = (wide * factor[:, None]).to(hidden.dtype.element_ty)
        w = tl.load(rows + k[None, :], mask=is_weight, other=0.0)
        if USE_DOT:
            first = tl.dot(w.to(x.dtype), x, first, input_precision="ieee")
        else:
            first += w.to(tl.float32) * tl.trans(x).to(tl.float32)
        if IS_SWIGLU:
            w = tl.load(second_rows + k[None, :], mask=is_weight, other=0.0)
            if USE_DOT:
                second = tl.dot(w.to(x.dtype), x, second, input_precision="ieee")
            else:
                second += w.to(tl.float32) * tl.trans(x).to(tl.float32)
    if not USE_DOT:
        first = tl.sum(first, 1)[:, None]
        second = tl.sum(second, 1)[:, None]
    if HAS_NORM:
        factor = tl.rsqrt(tl.sum(squares, 0) / in_features + eps)[None, :]
        first *= factor
        second *= factor
    if HAS_SCALE:
        first *= tl.load(scale + n, mask=is_output, other=0.0).to(tl.float32)[:, None]
        if IS_SWIGLU:
            second *= tl.load(scale + out_features + n, mask=is_output, other=0.0).to(tl.float32)[:, None]
    if IS_SWIGLU:
        first = first * tl.sigmoid(first) * second
    if HAS_GATE:
        first *= tl.load(gate).to(tl.float32)
    if HAS_MASK:
        first = tl.where(tl.load(mask + m, mask=is_token, other=0)[None, :] != 0, first, 0.0)
    place = m[None, :] * out_features + n[:, None]
    is_result = is_output[:, None] & is_token[None, :]
    if HAS_RESIDUAL:
        first += tl.load(residual + place, mask=is_result, other=0.0).to(tl.float32)
    tl.store(output + place, first.to(output.dtype.element_ty), mask=is_result)


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
    """See `FusedLinear`. More tokens, and layers of kinds that there is no kernel for, take the definition."""
    if not isinstance(linear, nn.Linear | Int8Linear) or linear.bias is not None or len(hidden) > _MAX_TOKENS:
        return torch_fused_linear(
            linear, hidden, norm=norm, eps=eps, is_swiglu=is_swiglu, gate=gate, mask=mask, residual=residual
        )
    num_tokens, in_features = hidden.shape
    weight, scale = linear.weight, linear.scale if isinstance(linear, Int8Linear) else None
    out_features = len(weight) // 2 if is_swiglu else len(weight)
    output = hidden.new_empty(num_tokens, out_features)
    blocks = _blocks(num_tokens, in_features, is_swiglu=is_swiglu)
    unused = hidden
    _fused_linear[(triton.cdiv(out_features, blocks["BLOCK_N"]),)](
        hidden.contiguous(),
        weight,
        unused if scale is None else scale,
        unused if norm is None else norm,
        unused if gate is None else gate,
        unused if mask is None else mask,
        unused if residual is None else residual,
        output,
        num_tokens,
        in_features,
        out_features,
        eps,
        HAS_SCALE=scale is not None,
        HAS_NORM=norm is not None,
        IS_SWIGLU=is_swiglu,
        HAS_GATE=gate is not None,
        HAS_MASK=mask is not None,
        HAS_RESIDUAL=residual is not None,
        USE_DOT=num_tokens > 1,
        **blocks,
    )
    return output


def _blocks(num_tokens: int, in_features: int, *, is_swiglu: bool) -> dict[str, int]:
    """Sizes that were the fastest of those that a prototype tried on an H100, with the 11B's shape in bfloat16."""
    width = triton.next_power_of_2(in_features)
    if num_tokens == 1:
        n, warps = (8, 8) if is_swiglu else (4, 4)
        return {"BLOCK_M": 1, "BLOCK_N": n, "BLOCK_K": min(1024, width), "num_warps": warps, "num_stages": 3}
    m = max(_MIN_DOT, triton.next_power_of_2(num_tokens))
    k = max(_MIN_DOT, min(128, width))
    return {"BLOCK_M": m, "BLOCK_N": 64, "BLOCK_K": k, "num_warps": 8, "num_stages": 5}

"""Fused linear layers in Triton, for the few tokens of a decode step, whose time is that of reading the weights."""

# Triton has no type stubs, and its language is not Python's.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportArgumentType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false
# ruff: noqa: ANN001, ANN202, N803, PLR0917

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import nn

from llama_vision.backends.local.int4_linear import Int4Linear
from llama_vision.backends.local.kernels.fused_linear import fused_linear as torch_fused_linear
from llama_vision.backends.local.quantization import Int8Linear

_MAX_TOKENS = 64
"""Beyond these a pass is no longer bound by reading weights, and cuBLAS is faster."""

_MIN_DOT = 16
"""The smallest dimension of `tl.dot`."""

_MAX_STAGES = 5
_RESERVED_BYTES = 4096
"""Of shared memory: what Triton takes beside the tiles."""


@triton.jit
def _load_weights(
    weight,
    row_size,
    scale,
    scale_stride,
    n,
    is_output,
    start,
    in_features,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """A tile of weights, (BLOCK_N, BLOCK_K) from column `start` on. Those in four bits are dequantized, to float32."""
    rows = n.to(tl.int64)[:, None]
    per_element: tl.constexpr = 1 if GROUP == 0 else 2
    column = start // per_element + tl.arange(0, BLOCK_K // per_element)
    is_column = column < row_size
    tile = tl.load(
        weight + rows * row_size + column[None, :], mask=is_output[:, None] & is_column[None, :], other=0
    )
    if GROUP > 0:
        group = start // GROUP + tl.arange(0, BLOCK_K // GROUP)
        is_group = is_output[:, None] & (group * GROUP < in_features)[None, :]
        place = scale + group[None, :] * scale_stride + rows * 2
        step = tl.load(place, mask=is_group, other=0.0).to(tl.float32)[:, :, None]
        zero = tl.load(place + 1, mask=is_group, other=0.0).to(tl.float32)[:, :, None]
        codes = tl.interleave(tile & 15, tile >> 4).to(tl.float32)
        groups = tl.reshape(codes, (BLOCK_N, BLOCK_K // GROUP, GROUP))
        tile = tl.reshape((groups - 8.0) * step + zero, (BLOCK_N, BLOCK_K))
    return tile


@triton.jit
def _fused_linear(  # noqa: C901, PLR0912 - one kernel, whose branches are decided when it is compiled
    hidden,
    weight,
    row_size,
    scale,
    scale_stride,
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
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LOOP_STAGES: tl.constexpr,
):
    """BLOCK_N outputs of all tokens. One token takes sums in float32, several take tensor cores, weights on the left.

    The factor of RMSNorm is known when all inputs were read, so it is applied to the result.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    is_output, is_token = n < out_features, m < num_tokens
    squares = tl.zeros((BLOCK_K, BLOCK_M), tl.float32)
    width: tl.constexpr = BLOCK_M if USE_DOT else BLOCK_K
    first = tl.zeros((BLOCK_N, width), tl.float32)
    second = tl.zeros((BLOCK_N, width), tl.float32)
    for start in tl.range(0, in_features, BLOCK_K, num_stages=LOOP_STAGES):
        k = start + tl.arange(0, BLOCK_K)
        is_input = k < in_features
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
        w = _load_weights(
            weight, row_size, scale, scale_stride, n, is_output, start, in_features, BLOCK_N, BLOCK_K, GROUP
        )
        if USE_DOT:
            first = tl.dot(w.to(x.dtype), x, first, input_precision="ieee")
        else:
            first += w.to(tl.float32) * tl.trans(x).to(tl.float32)
        if IS_SWIGLU:
            second_n = n + out_features
            w = _load_weights(
                weight,
                row_size,
                scale,
                scale_stride,
                second_n,
                is_output,
                start,
                in_features,
                BLOCK_N,
                BLOCK_K,
                GROUP,
            )
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
    if not _has_kernel(linear) or len(hidden) > _MAX_TOKENS:
        return torch_fused_linear(
            linear, hidden, norm=norm, eps=eps, is_swiglu=is_swiglu, gate=gate, mask=mask, residual=residual
        )
    num_tokens, in_features = hidden.shape
    weight, scale, unused = linear.weight, hidden, hidden
    if isinstance(linear, Int8Linear):
        scale = linear.scale
    elif isinstance(linear, Int4Linear):
        scale = linear.scale_and_zero
    out_features = len(weight) // 2 if is_swiglu else len(weight)
    output = hidden.new_empty(num_tokens, out_features)
    blocks = _blocks(linear, hidden, is_swiglu=is_swiglu)
    _fused_linear[(triton.cdiv(out_features, blocks["BLOCK_N"]),)](
        hidden.contiguous(),
        weight,
        weight.shape[1],
        scale,
        scale.stride(0),
        unused if norm is None else norm,
        unused if gate is None else gate,
        unused if mask is None else mask,
        unused if residual is None else residual,
        output,
        num_tokens,
        in_features,
        out_features,
        eps,
        HAS_SCALE=isinstance(linear, Int8Linear),
        HAS_NORM=norm is not None,
        IS_SWIGLU=is_swiglu,
        HAS_GATE=gate is not None,
        HAS_MASK=mask is not None,
        HAS_RESIDUAL=residual is not None,
        USE_DOT=num_tokens > 1,
        GROUP=in_features // len(scale) if isinstance(linear, Int4Linear) else 0,
        **blocks,
    )
    return output


def _has_kernel(linear: nn.Module) -> bool:
    if isinstance(linear, Int4Linear) and linear.is_packed:
        return False  # for a CPU
    return isinstance(linear, nn.Linear | Int8Linear | Int4Linear) and linear.bias is None


def _blocks(linear: Any, hidden: torch.Tensor, *, is_swiglu: bool) -> dict[str, int | None]:
    """Sizes of tiles, and how many of them are in shared memory or on their way to it.

    Those of bfloat16 were the fastest that a prototype tried on an H100, with the 11B's shape. Those of int4 were chosen by
    what the compiler says of registers and shared memory, and not tried.
    """
    num_tokens, in_features = hidden.shape
    width = triton.next_power_of_2(in_features)
    if num_tokens == 1:
        n, k, warps, stages = (8, 1024, 8, None) if is_swiglu else (4, 1024, 4, None)
        if isinstance(linear, Int4Linear):
            # Its tiles are small: only with several on their way is the memory busy.
            n, k, warps, stages = 4, 512, 4, 4
        m, k = 1, min(k, width)
    else:
        m, n, k, warps = max(_MIN_DOT, triton.next_power_of_2(num_tokens)), 64, min(128, width), 8
        k = max(_MIN_DOT, k)
        weights = (2 if is_swiglu else 1) * n * linear.weight.element_size()
        num_bytes = k * (weights + m * hidden.element_size())
        stages = (shared_memory_bytes(hidden.device) - _RESERVED_BYTES) // num_bytes
        stages = max(1, min(stages, _MAX_STAGES))
    return {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "LOOP_STAGES": stages, "num_warps": warps}


@cache
def shared_memory_bytes(device: torch.device) -> int:
    """Shared memory that a block of threads may take: 99 KB of a GeForce, 163 of an A100, 227 of an H100."""
    if device.type != "cuda":
        return _MAX_STAGES * 2**20
    driver: Any = triton.runtime.driver.active
    return driver.utils.get_device_properties(device.index or 0)["max_shared_mem"]

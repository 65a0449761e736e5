"""RoPE and the write to the KV cache in Triton, in one launch a layer."""

# Triton has no type stubs, and its language is not Python's.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportArgumentType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportCallIssue=false
# ruff: noqa: ANN001, ANN202, N803

import torch
import triton
import triton.language as tl


@triton.jit
def _rope_and_cache(
    heads,
    cos,
    sin,
    cache,
    block_stride,
    block_ids,
    offsets,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """One head of a token: grid (tokens, NUM_HEADS + 2 x NUM_KV_HEADS). Each thread has both of the numbers it rotates."""
    token, head = tl.program_id(0), tl.program_id(1)
    dim = tl.arange(0, HALF)
    source = heads + (token * (NUM_HEADS + 2 * NUM_KV_HEADS) + head) * 2 * HALF + dim
    first, second = tl.load(source), tl.load(source + HALF)
    if head < NUM_HEADS + NUM_KV_HEADS:
        a, b = first.to(tl.float32), second.to(tl.float32)
        place = token * 2 * HALF + dim
        first = a * tl.load(cos + place).to(tl.float32) + b * tl.load(sin + place).to(tl.float32)
        second = b * tl.load(cos + place + HALF).to(tl.float32) + a * tl.load(sin + place + HALF).to(
            tl.float32
        )
        first, second = first.to(heads.dtype.element_ty), second.to(heads.dtype.element_ty)
        tl.store(source, first)
        tl.store(source + HALF, second)
    if head >= NUM_HEADS:
        block, offset = tl.load(block_ids + token).to(tl.int64), tl.load(offsets + token)
        target = cache + block * block_stride + ((head - NUM_HEADS) * BLOCK_SIZE + offset) * 2 * HALF + dim
        tl.store(target, first.to(cache.dtype.element_ty))
        tl.store(target + HALF, second.to(cache.dtype.element_ty))


def rope_and_cache(
    heads: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    cache: torch.Tensor,
    block_ids: torch.Tensor,
    offsets: torch.Tensor,
) -> None:
    """See `RopeAndCache`. Head dimensions have to be powers of two."""
    num_tokens, num_heads, head_dim = heads.shape
    _, _, num_kv_heads, block_size, _ = cache.shape
    _rope_and_cache[num_tokens, num_heads](
        heads,
        cos,
        sin,
        cache,
        cache.stride(0),
        block_ids.contiguous(),
        offsets.contiguous(),
        NUM_HEADS=num_heads - 2 * num_kv_heads,
        NUM_KV_HEADS=num_kv_heads,
        HALF=head_dim // 2,
        BLOCK_SIZE=block_size,
        num_warps=1,
    )

"""Paged attention in Triton: split over the columns, so that a short batch keeps all multiprocessors busy (flash-decoding)."""

# Triton has no type stubs, and its language is not Python's.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportArgumentType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# ruff: noqa: ANN001, ANN202, N803, PLR0917

import torch
import triton
import triton.language as tl

_BLOCK_N = 64
"""Columns at a time."""

_MIN_DOT = 16
"""The smallest dimension of `tl.dot`."""

_MAX_SPLITS = 32
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _attend(
    query,
    keys,
    values,
    block_stride,
    tables,
    table_stride,
    rows,
    lens,
    counts,
    partial,
    maxima,
    scale,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLITS: tl.constexpr,
    HAS_COUNTS: tl.constexpr,
):
    """One split of the columns, for the query heads that share a KV head: grid (sequences, num_kv_heads, SPLITS)."""
    seq, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    per_kv_head: tl.constexpr = NUM_HEADS // NUM_KV_HEADS
    group, dim = tl.arange(0, GROUP), tl.arange(0, HEAD_DIM)
    table = tables + tl.load(rows + seq).to(tl.int64) * table_stride
    count = counts + tl.load(rows + seq).to(tl.int64) * table_stride
    num_columns = tl.load(lens + seq).to(tl.int32)
    num_steps = tl.cdiv(tl.cdiv(num_columns, BLOCK_N), SPLITS)
    first = split * num_steps * BLOCK_N
    stop = tl.minimum(first + num_steps * BLOCK_N, num_columns)
    is_head = group < per_kv_head
    heads = seq * NUM_HEADS + kv_head * per_kv_head + group
    q = tl.load(query + heads[:, None] * HEAD_DIM + dim[None, :], mask=is_head[:, None], other=0.0)
    maximum = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    output = tl.zeros((GROUP, HEAD_DIM), tl.float32)
    for start in range(first, stop, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        visible = columns < stop
        block = tl.load(table + columns // BLOCK_SIZE, mask=visible, other=0).to(tl.int64)
        if HAS_COUNTS:
            held = tl.load(count + columns // BLOCK_SIZE, mask=visible, other=0)
            visible = visible & (columns % BLOCK_SIZE < held)
        place = block * block_stride + (kv_head * BLOCK_SIZE + columns % BLOCK_SIZE) * HEAD_DIM
        k = tl.load(keys + place[None, :] + dim[:, None], mask=visible[None, :], other=0.0)
        scores = tl.where(visible[None, :], tl.dot(q, k) * scale, float("-inf"))
        new = tl.maximum(maximum, tl.max(scores, 1))
        finite = tl.where(new == float("-inf"), 0.0, new)
        rescale = tl.exp2((maximum - finite) * _LOG2_E)
        weights = tl.exp2((scores - finite[:, None]) * _LOG2_E)
        total = total * rescale + tl.sum(weights, 1)
        v = tl.load(values + place[:, None] + dim[None, :], mask=visible[:, None], other=0.0)
        output = output * rescale[:, None] + tl.dot(weights.to(v.dtype), v)
        maximum = new
    slot = heads * SPLITS + split
    tl.store(partial + slot[:, None] * HEAD_DIM + dim[None, :], output, mask=is_head[:, None])
    tl.store(maxima + slot * 2, maximum, mask=is_head)
    tl.store(maxima + slot * 2 + 1, total, mask=is_head)


@triton.jit
def _combine(partial, maxima, output, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr):
    """Put the splits of a query head together: grid (sequences x num_heads,)."""
    head = tl.program_id(0)
    split, dim = tl.arange(0, SPLITS), tl.arange(0, HEAD_DIM)
    slot = head * SPLITS + split
    maximum = tl.load(maxima + slot * 2)
    total = tl.load(maxima + slot * 2 + 1)
    largest = tl.max(maximum, 0)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    weight = tl.exp2((maximum - largest) * _LOG2_E)
    parts = tl.load(partial + slot[:, None] * HEAD_DIM + dim[None, :])
    result = tl.sum(parts * weight[:, None], 0) / tl.maximum(tl.sum(weight * total, 0), 1e-30)
    tl.store(output + head * HEAD_DIM + dim, result.to(output.dtype.element_ty))


def paged_attention(
    query: torch.Tensor,
    cache: torch.Tensor,
    tables: torch.Tensor,
    rows: torch.Tensor,
    lens: torch.Tensor,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `PagedAttention`. Head dimensions have to be powers of two, 16 or more."""
    num_seqs, num_heads, head_dim = query.shape
    _, _, num_kv_heads, block_size, _ = cache.shape
    query, rows, lens = query.contiguous(), rows.contiguous(), lens.contiguous()
    splits = num_splits(num_seqs * num_kv_heads, query.device)
    partial = query.new_empty(num_seqs * num_heads * splits, head_dim, dtype=torch.float32)
    maxima = query.new_empty(num_seqs * num_heads * splits, 2, dtype=torch.float32)
    output = torch.empty_like(query)
    _attend[num_seqs, num_kv_heads, splits](
        query,
        cache[:, 0],
        cache[:, 1],
        cache.stride(0),
        tables,
        tables.stride(0),
        rows,
        lens,
        tables if counts is None else counts,
        partial,
        maxima,
        head_dim**-0.5,
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size,
        GROUP=max(_MIN_DOT, triton.next_power_of_2(num_heads // num_kv_heads)),
        BLOCK_N=_BLOCK_N,
        SPLITS=splits,
        HAS_COUNTS=counts is not None,
    )
    _combine[(num_seqs * num_heads,)](partial, maxima, output, HEAD_DIM=head_dim, SPLITS=splits)
    return output


def num_splits(num_programs: int, device: torch.device) -> int:
    """Splits of the columns: a power of two, such that every multiprocessor has two programs."""
    num_processors = 1
    if device.type == "cuda":
        num_processors = torch.cuda.get_device_properties(device).multi_processor_count
    return min(triton.next_power_of_2(triton.cdiv(2 * num_processors, num_programs)), _MAX_SPLITS)

"""int4 linear layer: weights of four bits with a scale and a zero point per group of columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_GROUP_SIZES = (128, 64, 32)
_MIDDLE, _MAX = 8, 15
_EPS = 1e-12
_ROWS_AT_ONCE = 1024
"""Rows that are quantized or dequantized at a time: a few MB."""

_INNER_K_TILES = 8
"""An argument of torch's that its kernel for CPUs ignores."""
_INT4PACK_MAX_ROWS = 64
"""Rows of an input from which on the dequantized product is faster than torch's kernel for CPUs."""


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """A weight in four bits: (codes - 8) * scale + zero, as in torch's `_weight_int4pack_mm`.

    Attributes:
        codes: 0 ... 15, (out_features, in_features), uint8.
        scale: (out_features, groups), for groups of columns of equal size.
        zero: The value of code 8, (out_features, groups).
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor


def group_size(in_features: int) -> int | None:
    """Columns of a group: 128, or what divides a narrower layer; None for layers that are not quantized to four bits."""
    return next((size for size in _GROUP_SIZES if in_features % size == 0), None)


def grouped_int4(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> Int4Weight | None:
    """Make an `Int4Weight` of groups of any size; None where they are of another size than the layer takes."""
    size = codes.shape[1] // scale.shape[1]
    if size > _GROUP_SIZES[0] and size % _GROUP_SIZES[0] == 0:
        count = size // _GROUP_SIZES[0]
        return Int4Weight(codes, scale.repeat_interleave(count, 1), zero.repeat_interleave(count, 1))
    return Int4Weight(codes, scale, zero) if size in _GROUP_SIZES else None


def quantize_int4(weight: torch.Tensor) -> Int4Weight:
    """Round to the nearest of 16 steps between the least and the largest of each group."""
    size = group_size(weight.shape[1])
    assert size is not None
    # In pieces: in float32 a layer takes as much memory as two of bfloat16.
    pieces = [
        _quantize_rows(weight[i : i + _ROWS_AT_ONCE], size) for i in range(0, len(weight), _ROWS_AT_ONCE)
    ]
    return Int4Weight(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


class Int4Linear(nn.Module):
    """Linear layer with int4 weights; it computes in the dtype of its input.

    On a CPU torch's packed product multiplies a few rows at a time; else the weights are dequantized in pieces.

    Args:
        weight: The weight.
        bias: Its bias.
        dtype: Of scales and zero points.

    Attributes:
        weight: (out_features, in_features / 2), uint8: two columns a byte, the even one in the low bits; or as torch packs
            it for its kernel for CPUs.
        scale_and_zero: (groups, out_features, 2).
        is_packed: Whether torch has packed it.
    """

    def __init__(self, weight: Int4Weight, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.is_packed = weight.codes.device.type == "cpu" and _can_pack(len(weight.codes))
        self.weight: torch.Tensor
        self.register_buffer("weight", (_pack if self.is_packed else _pack_plainly)(weight.codes))
        self.scale_and_zero: torch.Tensor
        both = torch.stack((weight.scale.t(), weight.zero.t()), dim=-1)
        self.register_buffer("scale_and_zero", both.to(dtype).contiguous())
        self.bias = bias

    @classmethod
    def quantize(cls, linear: nn.Linear) -> "Int4Linear":
        """Quantize a layer whose width `group_size` takes."""
        return cls(quantize_int4(linear.weight.detach()), linear.bias, linear.weight.dtype)

    @staticmethod
    def num_bytes(linear: Any, dtype: torch.dtype) -> int:
        """Memory of a layer that is quantized from `dtype`."""
        size, count = group_size(linear.in_features), linear.weight.numel()
        assert size is not None
        bias = 0 if linear.bias is None else linear.out_features
        return count // 2 + (2 * count // size + bias) * dtype.itemsize

    @classmethod
    def concatenate(cls, layers: "Sequence[Int4Linear]") -> "Int4Linear":
        """Concatenate the rows of layers without a bias, and leave them slices of the result."""
        if not all(layer.is_packed for layer in layers):
            for layer in layers:
                layer._unpack_torchs()  # noqa: SLF001 - of its own class
        fused = cls.__new__(cls)
        nn.Module.__init__(fused)
        fused.bias, fused.is_packed = None, layers[0].is_packed
        for name, dim in (("weight", 0), ("scale_and_zero", 1)):
            tensors = [getattr(layer, name) for layer in layers]
            fused.register_buffer(name, torch.cat(tensors, dim))
            parts = getattr(fused, name).split([tensor.shape[dim] for tensor in tensors], dim)
            for layer, part in zip(layers, parts, strict=True):
                layer.register_buffer(name, part)
        return fused

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        if self.is_packed and len(rows) <= _INT4PACK_MAX_ROWS:
            size = rows.shape[1] // len(self.scale_and_zero)
            output = _packed_product(rows, self.weight, size, self.scale_and_zero.contiguous())
        else:
            pieces = range(0, len(self.weight), _ROWS_AT_ONCE)
            output = torch.cat(
                [functional.linear(rows, self.dequantize(start, start + _ROWS_AT_ONCE)) for start in pieces],
                -1,
            )
        output = output.view(*hidden.shape[:-1], -1)
        return output if self.bias is None else output + self.bias

    def dequantize(self, start: int, stop: int) -> torch.Tensor:
        """Dequantize rows, from and to a multiple of 64 or the end: (rows, in_features), in the dtype of the scales."""
        packed, both = self.weight[start:stop], self.scale_and_zero[:, start:stop]
        codes = (_unpack if self.is_packed else _unpack_plainly)(packed)
        scale, zero = (part.t().contiguous()[..., None] for part in both.unbind(-1))
        groups = codes.view(len(codes), len(both), -1).to(both.dtype)
        return groups.sub_(_MIDDLE).mul_(scale).add_(zero).flatten(1)

    def _unpack_torchs(self) -> None:
        if self.is_packed:
            self.register_buffer("weight", _pack_plainly(_unpack(self.weight)))
            self.is_packed = False


def _quantize_rows(rows: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    groups = rows.float().view(len(rows), -1, size)
    low, high = groups.amin(-1), groups.amax(-1)
    # Codes are computed with the rounded scale and zero point, so their rounding adds no error.
    scale = ((high - low) / _MAX).clamp_(min=_EPS).to(rows.dtype).clamp_(min=torch.finfo(rows.dtype).tiny)
    zero = (low + _MIDDLE * scale.float()).to(rows.dtype)
    codes = (groups - zero.float()[..., None]).div_(scale.float()[..., None]).round_().add_(_MIDDLE)
    return codes.clamp_(0, _MAX).to(torch.uint8).flatten(1), scale, zero


def _pack_plainly(codes: torch.Tensor) -> torch.Tensor:
    return codes[:, 0::2] | codes[:, 1::2] << 4


def _unpack_plainly(packed: torch.Tensor) -> torch.Tensor:
    return torch.stack((packed & _MAX, packed >> 4), dim=-1).flatten(1)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    pack: Any = torch.ops.aten._convert_weight_to_int4pack_for_cpu  # noqa: SLF001 - torch's only name
    # In pieces: torch takes them in 32 bits.
    pieces = range(0, len(codes), _ROWS_AT_ONCE)
    return torch.cat([pack(codes[i : i + _ROWS_AT_ONCE].int(), _INNER_K_TILES) for i in pieces])


def _packed_product(rows: torch.Tensor, packed: torch.Tensor, size: int, both: torch.Tensor) -> torch.Tensor:
    product: Any = torch.ops.aten._weight_int4pack_mm_for_cpu  # noqa: SLF001 - as above
    return product(rows, packed, size, both)


def _unpack(packed: torch.Tensor) -> torch.Tensor:
    """Undo torch's packing."""
    order = _packed_order()
    assert order is not None
    # Bytes are transposed before they become two values each.
    blocks = packed.view(-1, 2 * packed.shape[1], len(order) // 2).transpose(1, 2).contiguous()
    codes = torch.cat((blocks & _MAX, blocks >> 4), dim=1)  # (blocks of rows, rows, in_features)
    is_in_order = torch.equal(order, torch.arange(len(order)))
    return (codes if is_in_order else codes[:, order]).flatten(0, 1)


def _can_pack(out_features: int) -> bool:
    order = _packed_order()
    return order is not None and out_features % len(order) == 0


@cache
def _packed_order() -> torch.Tensor | None:
    """How torch packs a block of rows, which depends on the CPU; None where its product is not there.

    Returns:
        For each row of a block its place among a column's low halves of bytes, then its high halves; the block has as many
        rows as the tensor has elements.
    """
    count, columns = 128, 32
    try:
        rows = torch.arange(count)[:, None].expand(count, columns)
        digits = [_pack((rows >> shift) & _MAX).flatten().int() for shift in (0, 4)]
        low, high = ((digits[0] >> shift & _MAX) + 16 * (digits[1] >> shift & _MAX) for shift in (0, 4))
        half = next(n for n in (8, 16, 32, 64) if torch.equal(low[:n], low[n : 2 * n]))
        order = torch.cat((low[:half], high[:half])).argsort()
        codes = torch.randint(0, _MAX + 1, (count, columns), dtype=torch.uint8, generator=torch.Generator())
        both = torch.ones(1, count, 2)
        product = _packed_product(torch.eye(columns), _pack(codes), columns, both)
    except (AttributeError, NotImplementedError, RuntimeError, StopIteration):
        return None
    blocks = _pack(codes).view(-1, columns, half)
    found = torch.cat((blocks & _MAX, blocks >> 4), dim=-1)[..., order].transpose(1, 2).reshape(count, -1)
    is_right = torch.equal(found, codes) and torch.allclose(product.t(), codes.float() - _MIDDLE + 1)
    return order if is_right else None

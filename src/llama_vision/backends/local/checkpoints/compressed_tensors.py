"""Weights in the layout of compressed-tensors (llm-compressor, RedHatAI's): float8, int8, and packed int4 or int8.

The layout is documented in https://github.com/neuralmagic/compressed-tensors, `compressors/`.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from llama_vision.backends.local.int4_linear import Int4Weight, grouped_int4

_FORMATS = ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "dense")
_INT32_BITS = 32
_INT4 = 4


class CompressedTensors:
    """See `WeightFormat`.

    Raises:
        ValueError: The format is not one of those read here.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        named: dict[str, dict[str, Any]] = config.get("config_groups") or {}
        groups = list(named.values())
        formats = {str(group.get("format") or config.get("format") or "dense") for group in groups}
        if unknown := sorted(formats - set(_FORMATS)):
            raise ValueError(f"its compressed-tensors format {', '.join(unknown)} is not read here")
        sparsity: dict[str, Any] = config.get("sparsity_config") or {}
        if sparsity.get("format", "dense") != "dense":
            raise ValueError("its weights are sparse, and compressed-tensors of that kind are not read here")
        weights = [group["weights"] for group in groups if group.get("weights")]
        kinds = sorted({f"{one['type']}{one['num_bits']}" for one in weights})
        self._block: list[int] | None = next(
            (one["block_structure"] for one in weights if one.get("block_structure")), None
        )
        self.kind = " ".join(["compressed-tensors", *kinds])

    def is_quantized(self, tensors: Collection[str]) -> bool:
        """See `WeightFormat`."""
        return "weight_packed" in tensors or "weight_scale" in tensors

    def dequantize(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `WeightFormat`."""
        scale = tensors["weight_scale"].float()
        zero = _zero_points(tensors)
        weight = _unpack_weight(tensors) if "weight_packed" in tensors else tensors["weight"].float()
        groups = tensors.get("weight_g_idx")
        if groups is not None and groups.numel() and int(groups.min()) >= 0:
            scale, zero = scale[:, groups.long()], zero if zero is None else zero.float()[:, groups.long()]
        if zero is not None:
            weight = self._apply(torch.Tensor.sub_, weight, zero.float())
        return self._apply(torch.Tensor.mul_, weight, scale)

    def int4(self, tensors: Mapping[str, torch.Tensor]) -> Int4Weight | None:
        """See `WeightFormat`."""
        is_in_order = tensors.get("weight_g_idx") is None and self._block is None
        if not is_in_order or "weight_packed" not in tensors or _bits(tensors) != _INT4:
            return None
        scale, zero = tensors["weight_scale"].float(), _zero_points(tensors)
        if scale.dim() != 2 or len(scale) != len(tensors["weight_packed"]):  # noqa: PLR2004 - rows and groups
            return None
        codes = _unpack_weight(tensors).add_(2 ** (_INT4 - 1)).to(torch.uint8)
        return grouped_int4(codes, scale, torch.zeros_like(scale) if zero is None else -zero.float() * scale)

    def _apply(
        self, operation: Callable[..., Any], weight: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Subtract or multiply in place by the values of blocks, groups, rows or the whole tensor."""
        rows, columns = weight.shape
        values = values.reshape(1, 1) if values.numel() == 1 else values.reshape(len(values), -1)
        if self._block and values.numel() > 1:  # blocks at the edges are cut off
            values = values.repeat_interleave(self._block[0], dim=0)[:rows]
            values = values.repeat_interleave(self._block[1], dim=1)[:, :columns]
        operation(weight.view(rows, values.shape[1], -1), values[..., None])
        return weight


def _bits(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bits of a weight, from how many fit into a row's whole numbers of 32 bits."""
    words, columns = tensors["weight_packed"].shape[1], int(tensors["weight_shape"][1])
    return next(bits for bits in (4, 8) if words == -(-columns * bits // _INT32_BITS))


def _unpack_weight(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return _unpack(tensors["weight_packed"], _bits(tensors), int(tensors["weight_shape"][1]))


def _zero_points(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    zero = tensors.get("weight_zero_point")
    if zero is None or zero.dtype != torch.int32 or "weight_packed" not in tensors:
        return zero
    return _unpack(zero.t().contiguous(), _bits(tensors), int(tensors["weight_shape"][0])).t()


def _unpack(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Unpack signed values that were stored with an offset, lowest bits first: (rows, words) -> (rows, columns), float32."""
    count = _INT32_BITS // bits
    values = torch.empty(*packed.shape, count, dtype=torch.uint8, device=packed.device)
    for position in range(count):
        values[..., position] = (packed >> (position * bits)) & (2**bits - 1)
    return values.flatten(1)[:, :columns].float().sub_(2 ** (bits - 1))

"""Weights that GPTQ and AWQ quantized: whole numbers of 32 bits that hold 2, 4 or 8 bits each, with a scale per group.

The layouts are those of GPTQModel (formats `gptq` and `gptq_v2`) and AutoAWQ (version `gemm`).
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from llama_vision.backends.local.int4_linear import Int4Weight, grouped_int4

_INT32_BITS = 32
_INT4 = 4
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which four bits of a word hold its first, second, ... column."""


class Gptq:
    """See `WeightFormat`.

    Raises:
        ValueError: The format or number of bits is not one of those read here.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._bits = int(config["bits"])
        checkpoint_format = config.get("checkpoint_format") or "gptq"
        if self._bits not in (2, 4, 8):
            raise ValueError(f"its weights have {self._bits} bits, and of GPTQ's 2, 4 and 8 are read here")
        if checkpoint_format not in ("gptq", "gptq_v2"):
            raise ValueError(
                f"GPTQ's format {checkpoint_format!r} is not read here, only 'gptq' and 'gptq_v2'"
            )
        # https://github.com/AutoGPTQ/AutoGPTQ wrote zero points less one.
        self._zero_offset = 1 if checkpoint_format == "gptq" else 0
        self.kind = f"GPTQ int{self._bits}"

    def is_quantized(self, tensors: Collection[str]) -> bool:
        """See `WeightFormat`."""
        return "qweight" in tensors

    def dequantize(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `WeightFormat`."""
        codes, zeros, scales = self._unpack(tensors)
        groups = tensors.get("g_idx")
        if groups is None or _is_in_order(groups, scales.shape[1]):
            return _scale_groups(codes.float(), zeros, scales)
        return codes.float().sub_(zeros[:, groups.long()]).mul_(scales[:, groups.long()])

    def int4(self, tensors: Mapping[str, torch.Tensor]) -> Int4Weight | None:
        """See `WeightFormat`."""
        codes, zeros, scales = self._unpack(tensors)
        groups = tensors.get("g_idx")
        is_in_order = groups is None or _is_in_order(groups, scales.shape[1])
        return _int4(codes, zeros, scales) if self._bits == _INT4 and is_in_order else None

    def _unpack(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes, (out_features, in_features), and zero points and scales, (out_features, groups)."""
        codes = _unpack(tensors["qweight"].t().contiguous(), self._bits)
        zeros = (_unpack(tensors["qzeros"], self._bits) + self._zero_offset) & (2**self._bits - 1)
        return codes, zeros.t().float(), tensors["scales"].t().float()


class Awq:
    """See `WeightFormat`.

    Raises:
        ValueError: The version or number of bits is not one of those read here.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        version, bits = (
            str(config.get("version") or config.get("format") or "gemm").lower(),
            config.get("bits", config.get("w_bit")),
        )
        if version != "gemm":
            raise ValueError(f"AWQ's version {version!r} is not read here, only 'gemm'")
        if bits != _INT4:
            raise ValueError(f"its weights have {bits} bits, and of AWQ's only {_INT4} are read here")
        self.kind = "AWQ int4"

    def is_quantized(self, tensors: Collection[str]) -> bool:
        """See `WeightFormat`."""
        return "qweight" in tensors

    def dequantize(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `WeightFormat`."""
        codes, zeros, scales = self._unpack(tensors)
        return _scale_groups(codes.float(), zeros, scales)

    def int4(self, tensors: Mapping[str, torch.Tensor]) -> Int4Weight | None:
        """See `WeightFormat`."""
        return _int4(*self._unpack(tensors))

    def _unpack(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `Gptq`'s."""
        codes = _unpack(tensors["qweight"], _INT4, _AWQ_ORDER).t().contiguous()
        zeros = _unpack(tensors["qzeros"], _INT4, _AWQ_ORDER).t().float()
        return codes, zeros, tensors["scales"].t().float()


def _int4(codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> Int4Weight | None:
    return grouped_int4(codes, scales, (8 - zeros) * scales)


def _is_in_order(groups: torch.Tensor, num_groups: int) -> bool:
    """Whether each group is one run of columns, all of the same length, as without `desc_act`."""
    size = len(groups) // num_groups
    return torch.equal(groups, (torch.arange(len(groups), device=groups.device) // size).to(groups.dtype))


def _scale_groups(weight: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """(weight - zero point) * scale in place: (out_features, in_features), with (out_features, groups) of the others."""
    groups = weight.view(len(weight), scales.shape[1], -1)
    groups.sub_(zeros[..., None]).mul_(scales[..., None])
    return weight


def _unpack(packed: torch.Tensor, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """Unpack unsigned values: (rows, words) -> (rows, words * 32 / bits), uint8; lowest bits first, or in `order`."""
    positions = order or tuple(range(_INT32_BITS // bits))
    values = torch.empty(*packed.shape, len(positions), dtype=torch.uint8, device=packed.device)
    for column, position in enumerate(positions):
        values[..., column] = (packed >> (position * bits)) & (2**bits - 1)
    return values.flatten(1)

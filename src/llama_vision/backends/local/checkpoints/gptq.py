"""Weights that GPTQ and AWQ quantized: whole numbers of 32 bits that hold 2, 4 or 8 bits each, with a scale per group.

The layouts are those of GPTQModel (formats `gptq` and `gptq_v2`) and AutoAWQ (version `gemm`).
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch

_INT32_BITS = 32
_AWQ_BITS = 4
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
        weight = _unpack(tensors["qweight"].t().contiguous(), self._bits)  # (out_features, in_features)
        zeros = (_unpack(tensors["qzeros"], self._bits) + self._zero_offset) & (2**self._bits - 1)
        scales = tensors["scales"].float()
        groups = tensors.get("g_idx")
        if groups is None:
            groups = torch.arange(weight.shape[1], device=weight.device) // (weight.shape[1] // len(scales))
        groups = groups.long()
        return (weight - zeros[groups].t()).float().mul_(scales[groups].t())


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
        if bits != _AWQ_BITS:
            raise ValueError(f"its weights have {bits} bits, and of AWQ's only {_AWQ_BITS} are read here")
        self.kind = "AWQ int4"

    def is_quantized(self, tensors: Collection[str]) -> bool:
        """See `WeightFormat`."""
        return "qweight" in tensors

    def dequantize(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `WeightFormat`."""
        weight, scales = _unpack(tensors["qweight"], _AWQ_BITS, _AWQ_ORDER), tensors["scales"].float()
        zeros = _unpack(tensors["qzeros"], _AWQ_BITS, _AWQ_ORDER)
        size = len(weight) // len(scales)
        groups = torch.arange(len(weight), device=weight.device) // size
        return (weight - zeros[groups]).float().mul_(scales[groups]).t().contiguous()


def _unpack(packed: torch.Tensor, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """Unpack unsigned values: (rows, words) -> (rows, words * 32 / bits), int32; lowest bits first, or in `order`."""
    positions = torch.tensor(order or range(_INT32_BITS // bits), dtype=torch.int32, device=packed.device)
    return ((packed[..., None] >> (positions * bits)) & (2**bits - 1)).flatten(1)

"""Weights that bitsandbytes quantized: nf4 and fp4 in blocks, int8 in rows.

The layout is that of `bitsandbytes.functional.QuantState.as_dict(packed=True)` and `bitsandbytes.nn.Linear8bitLt`.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import torch

_STATE = "weight.quant_state.bitsandbytes__"
_INT8_MAX = 127
_PIECE = 2**20
"""Bytes that are dequantized at a time."""


class BitsAndBytes:
    """See `WeightFormat`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.kind = (
            f"bitsandbytes {config.get('bnb_4bit_quant_type', 'nf4')}"
            if config.get("load_in_4bit")
            else "bitsandbytes int8"
        )

    def is_quantized(self, tensors: Collection[str]) -> bool:
        """See `WeightFormat`."""
        return any(name == "SCB" or name.startswith(_STATE) for name in tensors)

    def dequantize(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `WeightFormat`."""
        if "SCB" in tensors:
            return tensors["weight"].float().mul_(tensors["SCB"].float()[:, None] / _INT8_MAX)
        (state_name,) = (name for name in tensors if name.startswith(_STATE))
        state = json.loads(tensors[state_name].cpu().numpy().tobytes())
        code = tensors["weight.quant_map"].float()
        absmax, block = _absmax(tensors, state), int(state["blocksize"])
        packed = tensors["weight"].view(-1)
        values = torch.empty(2 * len(packed), device=packed.device)
        for start in range(0, len(packed), _PIECE):
            piece = packed[start : start + _PIECE]
            target = values[2 * start : 2 * (start + len(piece))]
            target[0::2] = code[(piece >> 4).int()]  # the high half comes first
            target[1::2] = code[(piece & 15).int()]
        whole = len(values) // block * block
        values[:whole].view(-1, block).mul_(absmax[: whole // block, None])
        values[whole:].mul_(absmax[-1])
        return values[: torch.Size(state["shape"]).numel()].view(state["shape"])

    def int4(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See `WeightFormat`: steps of nf4 and fp4 are of unequal size."""


def _absmax(tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> torch.Tensor:
    """Scale of each block, which with double quantization is quantized itself: (blocks,), float32."""
    absmax = tensors["weight.absmax"]
    if "nested_blocksize" not in state:
        return absmax.float()
    scales = (
        tensors["weight.nested_absmax"].float().repeat_interleave(state["nested_blocksize"])[: len(absmax)]
    )
    return tensors["weight.nested_quant_map"].float()[absmax.int()] * scales + state["nested_offset"]

"""Weights in 8 bits: half the memory, for answers that differ a little."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from llama_vision.core.errors import LocalModelError

_INT8_MAX = 127
_FP8 = torch.float8_e4m3fn
_FP8_MAX = 448.0  # torch.finfo(_FP8).max
_EPS = 1e-12
_HOPPER = (9, 0)

# torch's own product with 8-bit weights takes, on a processor, a third of bfloat16's time for one row and a fifth of
# that of the other way for eight. It reads past the end of rows that are no multiple of this.
_PACKED_WIDTH = 64
_PACKED_ROWS = 32

_LayerFilter: TypeAlias = Callable[[str], bool]


class Int8Linear(nn.Module):
    """A linear layer with weights of 8 bits and a scale for each row; it computes in the precision of what comes in."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        # The scale is rounded first, and the weights by it: so its rounding costs nothing.
        dtype = linear.weight.dtype
        scale = _per_row_scale(weight, _INT8_MAX).to(dtype).clamp_(min=torch.finfo(dtype).tiny)
        rounded = (weight / scale.float()).round_().clamp_(-_INT8_MAX, _INT8_MAX).to(torch.int8)
        self.weight: torch.Tensor
        self.register_buffer("weight", rounded)
        self.scale: torch.Tensor
        self.register_buffer("scale", scale[:, 0])
        self.bias: torch.Tensor | None = linear.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Multiply (..., in) to (..., out)."""
        if _can_use_int8pack(hidden):
            flat = hidden.reshape(-1, hidden.shape[-1])
            found = _int8pack_mm(flat, self.weight, self.scale).view(*hidden.shape[:-1], -1)
        else:
            found = functional.linear(hidden, self.weight.to(hidden.dtype)) * self.scale
        return found if self.bias is None else found + self.bias


class Fp8Linear(nn.Module):
    """A linear layer that computes in 8-bit floats, with a scale for each row of weights and for each row that comes in."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _quantize_fp8(linear.weight.detach())
        self.weight: torch.Tensor
        self.register_buffer("weight", weight)
        self.scale: torch.Tensor
        self.register_buffer("scale", scale.t().contiguous())
        self.bias: torch.Tensor | None = linear.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Multiply (..., in) to (..., out)."""
        rows, scale = _quantize_fp8(hidden.reshape(-1, hidden.shape[-1]))
        found: torch.Tensor = torch._scaled_mm(  # noqa: SLF001 - torch's only name for it  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            rows, self.weight.t(), scale_a=scale, scale_b=self.scale, out_dtype=hidden.dtype
        )
        found = found.view(*hidden.shape[:-1], -1)
        return found if self.bias is None else found + self.bias


def check_quantization(quantization: str | None, device: torch.device) -> None:
    """Refuse what the device can't do.

    Args:
        quantization: Of the settings.
        device: Where the model is to run.

    Raises:
        LocalModelError: It can't.

    """
    if quantization != "fp8":
        return
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != _HOPPER:
        here = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the device {device}"
        raise LocalModelError(
            f"quantization='fp8' takes an NVIDIA GPU of the Hopper kind (H100, H200, H800, GH200), and this is {here}. "
            "quantization='int8' works everywhere."
        )


def quantize(network: Any, quantization: str, device: torch.device) -> None:
    """Replace linear layers by smaller ones, one after the other, so that the whole never has to fit at full size.

    Those that make scores of words stay as they are. With `fp8` so do those that see images or look at what was seen.

    Args:
        network: A Mllama; the layers that are replaced are then on the device, and the rest where it was.
        quantization: `int8` or `fp8`.
        device: Where the weights are to be.

    """
    kind, chosen = _METHODS[quantization]
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and chosen(name):
            owner, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(owner), own_name, kind(module.to(device)))


def _is_int8_layer(name: str) -> bool:
    return not name.endswith("lm_head")


def _chosen_for_fp8(name: str) -> bool:
    return "language_model.layers" in name and "cross_attn" not in name


_METHODS: dict[str, tuple[type[Int8Linear] | type[Fp8Linear], _LayerFilter]] = {
    "int8": (Int8Linear, _is_int8_layer),
    "fp8": (Fp8Linear, _chosen_for_fp8),
}


def _per_row_scale(rows: torch.Tensor, most: float) -> torch.Tensor:
    """Work out by what the rows' largest numbers become the largest there are: (rows, 1), 32 bits."""
    return rows.abs().amax(-1, keepdim=True).float().clamp_(min=_EPS) / most


def _quantize_fp8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = _per_row_scale(rows, _FP8_MAX)
    return (rows.float() / scale).clamp_(-_FP8_MAX, _FP8_MAX).to(_FP8), scale


def _can_use_int8pack(hidden: torch.Tensor) -> bool:
    width = hidden.shape[-1]
    few = hidden.numel() <= _PACKED_ROWS * width
    fits = width % _PACKED_WIDTH == 0 and hidden.dtype == torch.bfloat16
    return few and fits and hidden.device.type == "cpu"


def _int8pack_mm(rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch._weight_int8pack_mm(rows, weight, scale)  # noqa: SLF001 - as above  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

"""Quantized linear layers: int4 or int8 weights, or fp8 weights and activations."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn
from torch.nn import functional

from llama_vision.backends.local.int4_linear import Int4Linear, group_size
from llama_vision.core.errors import LocalModelError

_INT8_MAX = 127
_ROWS_AT_ONCE = 1024
_FP8 = torch.float8_e4m3fn
_FP8_MAX = 448.0  # torch.finfo(_FP8).max
_EPS = 1e-12
_HOPPER = (9, 0)

# torch's int8 kernel for CPUs takes a third of bfloat16's time for one row, and a fifth of the dequantized product's for
# eight. It reads past the end of rows whose width is no multiple of this.
_INT8PACK_WIDTH = 64
_INT8PACK_MAX_ROWS = 32


class Int8Linear(nn.Module):
    """Linear layer with int8 weights and a scale per output row; it computes in the dtype of its input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # In pieces: in float32 a layer takes as much memory as two of bfloat16.
        weight, step = linear.weight.detach(), _ROWS_AT_ONCE
        pieces = [_quantize_int8(weight[start : start + step]) for start in range(0, len(weight), step)]
        self.weight: torch.Tensor
        self.register_buffer("weight", torch.cat([rounded for rounded, _ in pieces]))
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.cat([scale for _, scale in pieces])[:, 0])
        self.bias: torch.Tensor | None = linear.bias

    @classmethod
    def quantize(cls, linear: nn.Linear) -> "Int8Linear":
        """Quantize a layer."""
        return cls(linear)

    @staticmethod
    def num_bytes(linear: Any, dtype: torch.dtype) -> int:
        """Memory of a layer that is quantized from `dtype`."""
        bias = 0 if linear.bias is None else linear.out_features
        return linear.weight.numel() + (linear.out_features + bias) * dtype.itemsize

    @classmethod
    def concatenate(cls, layers: "Sequence[Int8Linear]") -> "Int8Linear":
        """Concatenate the rows of layers without a bias, and leave them slices of the result."""
        return _concatenate(cls, layers, scale_dim=0)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        if _can_use_int8pack(hidden):
            output: torch.Tensor = torch._weight_int8pack_mm(  # noqa: SLF001 - torch's only name for it  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
                hidden.reshape(-1, hidden.shape[-1]), self.weight, self.scale
            )
            output = output.view(*hidden.shape[:-1], -1)
        else:
            output = functional.linear(hidden, self.weight.to(hidden.dtype)) * self.scale
        return output if self.bias is None else output + self.bias


class Fp8Linear(nn.Module):
    """Linear layer that multiplies in float8_e4m3fn, with a scale per output row and per input row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _quantize_fp8(linear.weight.detach())
        self.weight: torch.Tensor
        self.register_buffer("weight", weight)
        self.scale: torch.Tensor
        self.register_buffer("scale", scale.t().contiguous())
        self.bias: torch.Tensor | None = linear.bias

    @classmethod
    def quantize(cls, linear: nn.Linear) -> "Fp8Linear":
        """As `Int8Linear.quantize`."""
        return cls(linear)

    @staticmethod
    def num_bytes(linear: Any, dtype: torch.dtype) -> int:
        """As `Int8Linear.num_bytes`."""
        bias = 0 if linear.bias is None else linear.out_features * dtype.itemsize
        return linear.weight.numel() + linear.out_features * torch.float32.itemsize + bias

    @classmethod
    def concatenate(cls, layers: "Sequence[Fp8Linear]") -> "Fp8Linear":
        """As `Int8Linear.concatenate`."""
        return _concatenate(cls, layers, scale_dim=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        quantized, scale = _quantize_fp8(hidden.reshape(-1, hidden.shape[-1]))
        output: torch.Tensor = torch._scaled_mm(  # noqa: SLF001 - as above  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            quantized, self.weight.t(), scale_a=scale, scale_b=self.scale, out_dtype=hidden.dtype
        )
        output = output.view(*hidden.shape[:-1], -1)
        return output if self.bias is None else output + self.bias


QuantizedLinear: TypeAlias = Int4Linear | Int8Linear | Fp8Linear
"""All kinds of quantized linear layers."""

_Quantized = TypeVar("_Quantized", Int8Linear, Fp8Linear)


def _concatenate(kind: type[_Quantized], layers: Sequence[_Quantized], *, scale_dim: int) -> _Quantized:
    fused = kind.__new__(kind)
    nn.Module.__init__(fused)
    fused.bias = None
    for name, dim in (("weight", 0), ("scale", scale_dim)):
        tensors = [getattr(layer, name) for layer in layers]
        fused.register_buffer(name, torch.cat(tensors, dim))
        start = 0
        for layer, tensor in zip(layers, tensors, strict=True):
            layer.register_buffer(name, getattr(fused, name).narrow(dim, start, tensor.shape[dim]))
            start += tensor.shape[dim]
    return fused


def check_quantization(quantization: str | None, device: torch.device) -> None:
    """Refuse fp8 on a device other than a Hopper GPU."""
    is_cuda = device.type == "cuda"
    if quantization == "fp8" and not (is_cuda and torch.cuda.get_device_capability(device) == _HOPPER):
        name = torch.cuda.get_device_name(device) if is_cuda else f"the device {device}"
        raise LocalModelError(
            f"quantization='fp8' takes an NVIDIA GPU of the Hopper kind (H100, H200, H800, GH200), and this is {name}. "
            "quantization='int8' works everywhere."
        )


def is_slower_than_bfloat16(quantization: str | None, device: torch.device) -> bool:
    """Whether decoding is slower than without quantization.

    A GPU has no kernels for fp8 here: on an NVIDIA H100 the 11B's shape decoded 93 tokens/s in bfloat16 and 71 in fp8 (one
    sequence, 2026-11-28). int8 and int4 have kernels on NVIDIA's, which nobody has timed yet; MPS dequantizes.
    """
    if device.type == "cuda":
        return quantization == "fp8"
    return quantization is not None and device.type != "cpu"


def quantize(model: Any, quantization: str, device: torch.device) -> None:
    """Replace linear layers in place, one at a time. They end up on the device, others stay where they are."""
    for name in [name for name, _ in model.named_modules()]:  # what is replaced is freed
        module = model.get_submodule(name)
        if kind := quantized_type(name, module, quantization):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, kind.quantize(module.to(device)))


def quantized_type(name: str, module: nn.Module, quantization: str | None) -> type[QuantizedLinear] | None:
    """What a module is quantized to; None where it stays.

    With `int8` that are all linear layers but the LM head. With `int4` those of the text decoder's layers have four bits, and the
    vision encoder's eight. With `fp8` those of self-attention layers are quantized.
    """
    if quantization is None or not isinstance(module, nn.Linear) or name.endswith("lm_head"):
        return None
    is_decoder = "language_model.layers" in name
    if quantization == "fp8":
        return Fp8Linear if is_decoder and "cross_attn" not in name else None
    if quantization == "int4" and is_decoder and group_size(module.in_features):
        return Int4Linear
    return Int8Linear


def _per_row_scale(rows: torch.Tensor, max_value: float) -> torch.Tensor:
    """Per-row absmax scale: (rows, width) -> (rows, 1), float32."""
    return rows.abs().amax(-1, keepdim=True).float().clamp_(min=_EPS) / max_value


def _quantize_int8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Weights are divided by the rounded scale, so its rounding adds no error.
    scale = _per_row_scale(rows, _INT8_MAX).to(rows.dtype).clamp_(min=torch.finfo(rows.dtype).tiny)
    return (rows.float() / scale.float()).round_().clamp_(-_INT8_MAX, _INT8_MAX).to(torch.int8), scale


def _quantize_fp8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = _per_row_scale(rows, _FP8_MAX)
    return (rows.float() / scale).clamp_(-_FP8_MAX, _FP8_MAX).to(_FP8), scale


def _can_use_int8pack(hidden: torch.Tensor) -> bool:
    width = hidden.shape[-1]
    fits = width % _INT8PACK_WIDTH == 0 and hidden.numel() <= _INT8PACK_MAX_ROWS * width
    return fits and hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu"

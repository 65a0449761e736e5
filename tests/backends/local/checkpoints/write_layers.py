"""Writes `layers/`: one layer in the layout of each library, with the library's own dequantized weight beside it.

pip install bitsandbytes compressed-tensors
python tests/backends/local/checkpoints/write_layers.py
"""

from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "layers"


def four_bits(weight, kind, *, nested):
    packed, state = bnb.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    stored = {f"weight.{name}": value for name, value in state.as_dict(packed=True).items()}
    return stored | {"weight": packed}, bnb.dequantize_4bit(packed, state)


def eight_bits(weight):
    values, scale, _ = bnb.int8_vectorwise_quant(weight.half())
    stored = {"weight": values, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return stored, bnb.int8_vectorwise_dequant(values, scale)


def compressed(weight, kind, **arguments):
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    args = scheme.weights
    rows, columns = weight.shape
    match args.strategy:
        case "tensor":
            blocks = weight.reshape(1, 1, -1)
        case "group":
            blocks = weight.reshape(rows, -1, args.group_size)
        case "block":
            height, width = args.block_structure
            full = torch.nn.functional.pad(weight, (0, -columns % width, 0, -rows % height))
            blocks = full.unflatten(0, (-1, height)).unflatten(2, (-1, width)).transpose(1, 2).flatten(2)
        case _:
            blocks = weight.reshape(rows, 1, -1)
    scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args)
    if args.strategy == "tensor":
        scale, zero = scale.flatten(), zero.flatten()
    compressor = BaseCompressor.get_value_from_registry(kind)
    stored = compressor.compress({"weight": weight, "weight_scale": scale, "weight_zero_point": zero}, scheme)
    return stored, compressor.decompress(dict(stored), scheme)["weight"]


def main():
    torch.manual_seed(0)
    weight = torch.randn(24, 64) * torch.linspace(0.1, 2, 24)[:, None]
    uneven = torch.randn(24, 40)
    int4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    fp8 = {"num_bits": 8, "type": "float"}
    layers = {
        "bitsandbytes-nf4": four_bits(weight, "nf4", nested=False),
        "bitsandbytes-nf4-nested": four_bits(torch.randn(68, 256), "nf4", nested=True),
        "bitsandbytes-fp4": four_bits(weight, "fp4", nested=False),
        "bitsandbytes-int8": eight_bits(weight),
        "compressed-fp8-channel": compressed(weight, "float-quantized", strategy="channel", **fp8),
        "compressed-fp8-tensor": compressed(weight, "float-quantized", strategy="tensor", **fp8),
        "compressed-fp8-block": compressed(
            uneven, "float-quantized", strategy="block", block_structure=[16, 16], **fp8
        ),
        "compressed-int8-channel": compressed(
            weight, "int-quantized", num_bits=8, type="int", strategy="channel"
        ),
        "compressed-int4-group": compressed(weight, "pack-quantized", **int4),
        "compressed-int4-zero": compressed(weight, "pack-quantized", symmetric=False, **int4),
        "compressed-int8-packed": compressed(
            weight, "pack-quantized", num_bits=8, type="int", strategy="channel"
        ),
    }
    FOLDER.mkdir(exist_ok=True)
    for name, (stored, dequantized) in layers.items():
        tensors = stored | {"dequantized": dequantized.float()}
        save_file({key: value.contiguous() for key, value in tensors.items()}, FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    main()

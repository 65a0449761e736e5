"""The tiny model in the layouts of quantized checkpoints, written by their documents with a plain quantizer."""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file

from llama_vision.backends.local.model_loader import TINY_MODEL_PATH

GROUP_SIZE = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
# The quantiles of a normal distribution that QLoRA's paper lists (arXiv:2305.14314, appendix E).
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def write_quantized(folder, kind, source=TINY_MODEL_PATH):
    """Write a model with its linear layers, but for the vision encoder and the LM head, in the layout of a kind."""
    config, write = KINDS[kind]
    folder.mkdir(parents=True)
    for path in source.glob("*.json"):
        shutil.copy(path, folder)
    model = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(model | {"quantization_config": config}))
    tensors = {}
    for name, weight in load_file(source / "model.safetensors").items():
        layer, _, parameter = name.rpartition(".")
        if parameter == "weight" and "language_model" in name and layer.endswith("_proj"):
            tensors |= {f"{layer}.{suffix}": value for suffix, value in write(weight.float()).items()}
        else:
            tensors[name] = weight
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def nf4(weight):
    blocks = weight.reshape(-1, 64)
    absmax = blocks.abs().amax(-1)
    codes = (
        ((blocks / absmax[:, None])[..., None] - torch.tensor(NF4)).abs().argmin(-1).flatten().to(torch.uint8)
    )
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(weight.shape)}
    return {
        "weight": (codes[0::2] << 4 | codes[1::2])[:, None],
        "weight.absmax": absmax,
        "weight.quant_map": torch.tensor(NF4),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(
            list(json.dumps(state).encode()), dtype=torch.uint8
        ),
    }


def bnb_int8(weight):
    absmax = weight.abs().amax(-1)
    return {
        "weight": (weight / absmax[:, None] * 127).round().to(torch.int8),
        "SCB": absmax,
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }


def float8(weight):
    scale = weight.abs().amax(-1, keepdim=True) / 448
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale.bfloat16()}


def int8(weight):
    scale = weight.abs().amax(-1, keepdim=True) / 127
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}


def packed_int4(weight):
    values, scale, _ = _in_groups(weight)
    return {
        "weight_packed": _pack(values),
        "weight_scale": scale,
        "weight_shape": torch.tensor(weight.shape),
    }


def gptq(weight, zero_offset=1, *, shuffled=False):
    order = torch.randperm(weight.shape[1]) if shuffled else torch.arange(weight.shape[1])
    values, scale, zero = _in_groups(weight[:, order])
    groups = torch.empty_like(order)
    groups[order] = torch.arange(len(order)) // GROUP_SIZE
    return {
        "qweight": _pack(values[:, order.argsort()]).t(),
        "qzeros": _pack((zero - zero_offset).t()),
        "scales": scale.t().half(),
        "g_idx": groups.int(),
    }


def awq(weight):
    values, scale, zero = _in_groups(weight)
    in_order = [
        values.t().unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1),
        zero.t().unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1),
    ]
    return {"qweight": _pack(in_order[0]), "qzeros": _pack(in_order[1]), "scales": scale.t().half()}


def _in_groups(weight):
    """Quantize to 0 ... 15 in groups of columns: values, scales and zero points, which are 8."""
    groups = weight.unflatten(1, (-1, GROUP_SIZE))
    scale = (groups.abs().amax(-1) / 7).half().float()
    values = (groups / scale[..., None]).round().clamp(-8, 7).int().flatten(1) + 8
    return values, scale, torch.full_like(scale, 8, dtype=torch.int32)


def _pack(values):
    """Pack values of four bits into whole numbers of 32, lowest bits first: (rows, columns) -> (rows, columns / 8)."""
    words = (values.long().unflatten(1, (-1, 8)) << torch.arange(0, 32, 4)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _compressed(layout, **weights):
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


KINDS = {
    "bitsandbytes nf4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        nf4,
    ),
    "bitsandbytes int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, bnb_int8),
    "compressed-tensors float8": (_compressed("float-quantized", type="float", num_bits=8), float8),
    "compressed-tensors int8": (_compressed("int-quantized", type="int", num_bits=8), int8),
    "compressed-tensors int4": (_compressed("pack-quantized", type="int", num_bits=4), packed_int4),
    "GPTQ int4": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP_SIZE}, gptq),
    "AWQ int4": ({"quant_method": "awq", "bits": 4, "group_size": GROUP_SIZE, "version": "gemm"}, awq),
}

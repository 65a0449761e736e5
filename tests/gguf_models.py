"""GGUF files of Llama 3.2 Vision as Ollama's converter writes them: in one file, or with a projector file of its own.

Written by the facts in Ollama's public source (convert/convert_mllama.go, 2025-05-22; for two files llama/mllama.cpp of
2024), since no published file can be had in tests. `write_ollama_store` lays them out as Ollama's store.
"""

import hashlib
import json
import re

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file
from transformers import AutoConfig

from llama_vision.backends.local.model_loader import TINY_MODEL_PATH

# From checkpoint names to GGUF's. All are replaced at once, from the left.
RENAMED = {
    "lm_head": "output",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up",
    "post_attention_layernorm": "ffn_norm",
    "language_model.": "",
    "gate_attn": "attn_gate",
    "gate_ffn": "ffn_gate",
    "cross_attn.": "cross_attn_",
    "vision_model": "v",
    "class_embedding": "class_embd",
    "patch_embedding": "patch_embd",
    "gated_positional_embedding.tile_embedding": "tile_position_embd",
    "gated_positional_embedding.embedding": "position_embd.weight",
    "gated_positional_embedding": "position_embd",
    "embedding.weight": "weight",
    "pre_tile_positional_embedding": "pre_tile_position_embd",
    "post_tile_positional_embedding": "post_tile_position_embd",
    "layernorm_pre": "pre_ln",
    "layernorm_post": "post_ln",
    "global_transformer.layers": "global.blk",
    "transformer.layers": "blk",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "multi_modal_projector": "mm.0",
}
ANY_RENAMED = re.compile("|".join(map(re.escape, RENAMED)))
IN_PROJECTOR = {
    "attn_norm": "ln1",
    "ffn_norm": "ln2",
    "attn_output": "attn_out",
    "ffn_up": "ffn_down",
    "ffn_down": "ffn_up",
}
TABLES = {f"v.{name}.weight" for name in ("position_embd", "tile_position_embd")} | {
    f"v.{name}_tile_position_embd.weight" for name in ("pre", "post")
}


def write_gguf(folder, kind="F32", *, source=TINY_MODEL_PATH, projector=False, mean=0.5, changes=None):
    """Write a checkpoint as one file, or two: their paths.

    Args:
        kind: Type of the text model's matrices; `Q4_K` stands for the mix Q4_K_M.
        projector: Whether the vision part is a file of its own, in the older layout.
        mean: Of the image normalization, a key that Ollama's own files lack, the standard deviation too.
        changes: Metadata to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.from_pretrained(source)
    text = gguf.GGUFWriter(folder / "model.gguf", "mllama")
    vision = gguf.GGUFWriter(folder / "model-mmproj.gguf", "mllama") if projector else text
    metadata = _text_metadata(config.text_config) | _tokenizer_metadata(source) | (changes or {})
    _add_metadata(text, metadata)
    _add_metadata(vision, _vision_metadata(config.vision_config, mean))
    for name, weight in _tensors(source, config).items():
        is_vision = name.startswith(("v.", "mm."))
        renamed = _in_projector(name) if projector else name
        data, stored_type = _encode(name, weight, kind)
        (vision if is_vision else text).add_tensor(renamed, data, raw_dtype=stored_type)
    writers = [text, vision] if projector else [text]
    for writer in writers:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return sorted(folder.glob("*.gguf"), key=lambda path: "mmproj" in path.name)


def write_ollama_store(store, files, tag="llama3.2-vision/latest", parameters=None):
    """Write files into a store as a tag of Ollama's: the paths of the blobs."""
    blobs, layers = store / "blobs", []
    blobs.mkdir(parents=True, exist_ok=True)
    contents = [("model", files[0].read_bytes()), *(("projector", file.read_bytes()) for file in files[1:])]
    if parameters is not None:
        contents.append(("params", json.dumps(parameters).encode()))
    for kind, content in contents:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / f"sha256-{digest}").write_bytes(content)
        media_type = f"application/vnd.ollama.image.{kind}"
        layers.append({"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)})
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return [blobs / layer["digest"].replace(":", "-") for layer in layers]


def _tensors(source, config):
    """All tensors by their names in one file, with the values as the converter changes them."""
    heads = {
        "q": config.text_config.num_attention_heads,
        "k": config.text_config.num_key_value_heads,
        "v": config.vision_config.attention_heads,
    }
    tensors = {}
    if config.text_config.rope_parameters["rope_type"] == "llama3":
        tensors["rope_freqs.weight"] = _rope_factors(config.text_config)
    for checkpoint_name, tensor in load_file(source / "model.safetensors").items():
        name = re.sub(r"^model\.(?=vision|multi|language)", "", checkpoint_name)
        name = re.sub(r"^language_model\.(?=layers|norm|embed)", "model.", name)
        name = ANY_RENAMED.sub(lambda found: RENAMED[found[0]], name)
        weight = tensor.float().numpy()
        found = re.fullmatch(r"(v\.(?:global\.)?)?blk\.\d+\.(?:cross_)?attn_([qk])(?:_proj)?\.weight", name)
        if name == "v.position_embd.gate":
            tensors[name] = 1 - np.tanh(weight)
            name, weight = "v.tile_position_embd.gate", np.tanh(weight)
        elif found:
            weight = _interleave(weight, heads["v" if found[1] else found[2]])
        elif name.startswith("v.") and name.endswith("gate"):
            weight = np.tanh(weight)
        tensors[name] = weight
    return tensors


def _interleave(weight, heads):
    pairs = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _rope_factors(config):
    """What transformers' llama3 frequencies are slower by: the file's `rope_freqs`."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    dim = 2 * len(scaled)
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, dim, 2).double() / dim)
    return (plain / scaled).float().numpy()


def _in_projector(name):
    if not name.startswith(("v.blk", "v.global")):
        return name
    return re.sub(r"(?<=\d\.)\w+", lambda found: IN_PROJECTOR.get(found[0], found[0]), name, count=1)


def _encode(name, weight, kind):
    stored_type = _stored_type(name, weight.shape, kind)
    if stored_type in (Type.F32, Type.F16):
        return weight.astype(np.float32 if stored_type == Type.F32 else np.float16), None
    if stored_type in K_QUANTS:
        return K_QUANTS[stored_type](weight), stored_type
    return gguf.quants.quantize(weight, stored_type), stored_type


def _stored_type(name, shape, kind):
    """As Ollama chooses: what it leaves alone is float32 or float16, and its rule lets `v.*.attn_v.weight` through."""
    is_vision = name.startswith(("v.", "mm.")) and "attn_v." not in name
    if kind == "F32" or len(shape) == 1 or name in TABLES:
        return Type.F32
    if is_vision or shape[-1] % 32:
        return Type.F16
    if kind in ("Q4_K", "Q5_K", "Q6_K") and shape[-1] % 256:
        return Type.Q5_0
    return Type.Q6_K if kind == "Q4_K" and (name == "output.weight" or "attn_v." in name) else Type[kind]


def q4_k(weight):
    """Blocks of 256 with eight scales and minima of six bits; gguf only reads them."""
    header, q = _in_steps(weight, 15)
    values = (q[:, 0::2] | (q[:, 1::2] << 4)).reshape(-1, 128)
    return np.concatenate([*header, values], 1).reshape(len(weight), -1)


def q5_k(weight):
    """As `q4_k`, with a fifth bit of each value in bytes of their own; gguf only reads them."""
    header, q = _in_steps(weight, 31)
    high = sum((q[:, group] >> 4) << group for group in range(8))
    values = ((q[:, 0::2] & 15) | ((q[:, 1::2] & 15) << 4)).reshape(-1, 128)
    return np.concatenate([*header, high, values], 1).reshape(len(weight), -1)


def _in_steps(weight, largest):
    """Scales and minima, packed, and values from 0 to the largest: (blocks, 8, 32)."""
    x = np.asarray(weight, np.float32).reshape(-1, 8, 32)
    low = np.minimum(x.min(-1), 0)
    scale = (x.max(-1) - low) / largest
    d, d_min = ((one.max(1, keepdims=True) / 63).astype(np.float16) for one in (scale, -low))
    s, m = (
        np.clip(np.rint(_divide(one, by.astype(np.float32))), 0, 63).astype(np.uint8)
        for one, by in ((scale, d), (-low, d_min))
    )
    steps = np.broadcast_to((d.astype(np.float32) * s)[..., None], x.shape)
    values = _divide(x + (d_min.astype(np.float32) * m)[..., None], steps)
    packed = [
        (s[:, :4] & 63) | ((s[:, 4:] >> 4) << 6),
        (m[:, :4] & 63) | ((m[:, 4:] >> 4) << 6),
        (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4),
    ]
    header = [d.view(np.uint8), d_min.view(np.uint8), *packed]
    return header, np.clip(np.rint(values), 0, largest).astype(np.uint8)


def q6_k(weight):
    """Blocks of 256 with sixteen scales of eight bits; gguf only reads them."""
    x = np.asarray(weight, np.float32).reshape(-1, 16, 16)
    scale = np.abs(x).max(-1) / 31
    d = (scale.max(1, keepdims=True) / 127).astype(np.float16)
    step = np.maximum(d.astype(np.float32), 1e-12)
    s = np.clip(np.rint(scale / step), 1, 127).astype(np.int8)
    q = (np.clip(np.rint(x / (step * s)[..., None]), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.stack([(q[:, :, one] & 15) | ((q[:, :, one + 2] & 15) << 4) for one in (0, 1)], 2).reshape(
        -1, 128
    )
    high = sum((q[:, :, one] >> 4) << (2 * one) for one in range(4)).reshape(-1, 64)
    return np.concatenate([low, high, s.view(np.uint8), d.view(np.uint8)], 1).reshape(len(weight), -1)


K_QUANTS = {Type.Q4_K: q4_k, Type.Q5_K: q5_k, Type.Q6_K: q6_k}


def _divide(values, by):
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


def _text_metadata(config):
    return {
        "mllama.vocab_size": config.vocab_size,
        "mllama.block_count": config.num_hidden_layers,
        "mllama.context_length": config.max_position_embeddings,
        "mllama.embedding_length": config.hidden_size,
        "mllama.feed_forward_length": config.intermediate_size,
        "mllama.attention.head_count": config.num_attention_heads,
        "mllama.attention.head_count_kv": config.num_key_value_heads,
        "mllama.rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "mllama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "mllama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "mllama.attention.cross_attention_layers": config.cross_attention_layers,
    }


def _vision_metadata(config, mean):
    normalization = {} if mean is None else {name: [mean] * 3 for name in ("image_mean", "image_std")}
    return {
        f"mllama.vision.{name}": value
        for name, value in {
            "block_count": config.num_hidden_layers,
            "global.block_count": config.num_global_layers,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.attention_heads,
            "attention.layer_norm_epsilon": config.norm_eps,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "max_num_tiles": config.max_num_tiles,
            "intermediate_layers_indices": config.intermediate_layers_indices,
            **normalization,
        }.items()
    }


def _tokenizer_metadata(source):
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    merges = tokenizer["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        "tokenizer.ggml.eos_token_id": ids["<|eot_id|>"],
        "general.file_type": 1,
    }


def _add_metadata(writer, metadata):
    for key, value in metadata.items():
        match value:
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
            case float():
                writer.add_float32(key, value)
            case _:
                writer.add_uint32(key, value)

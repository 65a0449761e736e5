"""GGUF files of Llama 3.2 Vision, as Ollama has them: architecture `mllama`, in one file or with a projector file.

Read by the facts of Ollama's converter (convert/convert_mllama.go of https://github.com/ollama/ollama, 2025-05-22) and,
for the projector file, of its runner of 2024 (llama/mllama.cpp). Tried on files written by these facts, not on Ollama's.

Names differ from MllamaForConditionalGeneration's, rows of query and key projections are interleaved for another form of
rotary embedding, and the gates of the vision encoder are stored after tanh.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, MllamaConfig

from llama_vision.backends.local.checkpoints.folder import wrong_architecture_error
from llama_vision.backends.local.int4_linear import Int4Weight
from llama_vision.core.errors import LocalModelError, MissingDependencyError
from llama_vision.images.tiling import supported_aspect_ratios

if TYPE_CHECKING:
    import numpy.typing as npt

MAGIC = b"GGUF"
GGUF_NOTE = (
    "GGUF files of Llama 3.2 Vision are read by what Ollama's source says of them; this was tried on files of our own making, and "
    "never on Ollama's. The file may be of another converter: please report it, or take a folder of *.safetensors."
)
_PIECE = 2**24
"""Weights that are dequantized at a time: 64 MiB in float32."""

_TOP = {
    "token_embd.weight": "model.language_model.embed_tokens.weight",
    "output_norm.weight": "model.language_model.norm.weight",
    "output.weight": "lm_head.weight",
    "mm.0.weight": "model.multi_modal_projector.weight",
    "mm.0.bias": "model.multi_modal_projector.bias",
    "v.class_embd": "model.vision_model.class_embedding",
    "v.patch_embd.weight": "model.vision_model.patch_embedding.weight",
    "v.position_embd.weight": "model.vision_model.gated_positional_embedding.embedding",
    "v.tile_position_embd.weight": "model.vision_model.gated_positional_embedding.tile_embedding.weight",
    "v.tile_position_embd.gate": "model.vision_model.gated_positional_embedding.gate",
    "v.pre_tile_position_embd.weight": "model.vision_model.pre_tile_positional_embedding.embedding.weight",
    "v.pre_tile_position_embd.gate": "model.vision_model.pre_tile_positional_embedding.gate",
    "v.post_tile_position_embd.weight": "model.vision_model.post_tile_positional_embedding.embedding.weight",
    "v.post_tile_position_embd.gate": "model.vision_model.post_tile_positional_embedding.gate",
    "v.pre_ln.weight": "model.vision_model.layernorm_pre.weight",
    "v.pre_ln.bias": "model.vision_model.layernorm_pre.bias",
    "v.post_ln.weight": "model.vision_model.layernorm_post.weight",
    "v.post_ln.bias": "model.vision_model.layernorm_post.bias",
}
_WITHOUT_PARAMETER = frozenset({"rope_freqs.weight", "v.position_embd.gate"})
_TEXT_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "cross_attn_attn_gate": "cross_attn_attn_gate",
    "cross_attn_mlp_gate": "cross_attn_mlp_gate",
} | {
    f"cross_attn_{part}": f"cross_attn.{part}"
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
}
_VISION_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
    "attn_gate": "gate_attn",
    "ffn_gate": "gate_ffn",
}
_PROJECTOR_LAYER = _VISION_LAYER | {
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "attn_out": "self_attn.o_proj",
    "ffn_down": "mlp.fc1",  # these two are the other way round there
    "ffn_up": "mlp.fc2",
}
_LAYER = re.compile(r"(v\.(?:global\.)?)?blk\.(\d+)\.(\w+?)(?:\.(weight|bias))?")
_QUERY_OR_KEY = re.compile(r"(v\.(?:global\.)?)?blk\.\d+\.(?:cross_)?attn_([qk])(?:_proj)?\.weight")
_GATE_AFTER_TANH = re.compile(r"v\.\w*tile_position_embd\.gate|v\.global\.blk\.\d+\.(attn|ffn)_gate")

_LLAMA_3_PRE_TOKENIZERS = ("llama-bpe", "llama3", "llama-v3")
_LLAMA_3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTROL, _USER_DEFINED = 3, 4
_END_TOKENS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")

# Mllama's published preprocessing is CLIP's; the files have no key for it, llama.cpp's projector files do.
_IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
_IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
_BILINEAR = 2

# The files have these as factors only (`rope_freqs`); Llama 3.2's, against which the factors are checked.
_LLAMA_3_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_ROPE_TOLERANCE = 1e-4


class GgufCheckpoint:
    """See `Checkpoint`.

    Args:
        paths: A file, or one with the text model and one with the vision encoder and projector.
        sampling_defaults: Such as Ollama's `temperature` and `top_p`; empty is greedy.

    Raises:
        LocalModelError: A file is cut off or no Mllama, or a part of the model is missing.
        MissingDependencyError: The library `gguf` is not installed.
    """

    def __init__(self, paths: Sequence[Path], sampling_defaults: Mapping[str, Any] | None = None) -> None:
        self._gguf = _import_gguf()
        self._name = str(paths[0])
        self._sampling_defaults = dict(sampling_defaults or {})
        self._metadata: dict[str, Any] = {}
        self._stored: dict[str, Any] = {}
        for path in paths:
            self._add(path)
        self._tensors = {self._parameter_name(name): (name, one) for name, one in self._stored.items()}
        self._tensors.pop("", None)
        self.shapes: dict[str, tuple[int, ...] | None] = {
            name: _shape(tensor) for name, (_, tensor) in self._tensors.items()
        }
        self._check_parts()

    @property
    def kind(self) -> str:
        """GGUF, with the type that most weights have."""
        sizes: dict[str, int] = {}
        for tensor in self._stored.values():
            sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
        return f"GGUF {max(sizes, key=sizes.__getitem__)}"

    @cached_property
    def config(self) -> Any:
        """Built from metadata and shapes."""
        return MllamaConfig(
            text_config=self._text_config(),
            vision_config=self._vision_config(),
            image_token_index=self._tokens.index("<|image|>"),
            dtype="bfloat16",
        )

    @property
    def generation_config(self) -> Any:
        """Greedy, or with Ollama's parameters."""
        known = {
            name: self._sampling_defaults[name]
            for name in ("temperature", "top_p", "top_k", "min_p")
            if name in self._sampling_defaults
        }
        return GenerationConfig(do_sample=bool(known), eos_token_id=self._eos_token_ids(), **known)

    @property
    def image_processor_config(self) -> Mapping[str, Any]:
        """Tiles of the model's size, with CLIP's mean and standard deviation unless the file has its own."""
        side = self._get("vision.image_size")
        return {
            "image_mean": list(self._metadata.get("vision.image_mean", _IMAGE_MEAN)),
            "image_std": list(self._metadata.get("vision.image_std", _IMAGE_STD)),
            "max_image_tiles": self._get("vision.max_num_tiles"),
            "resample": _BILINEAR,
            "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        }

    def tokenizer(self) -> Tokenizer:
        """Build the tokenizer: byte-level BPE with Llama 3's split."""
        if (split := self._metadata.get("tokenizer.ggml.pre", "llama-bpe")) not in _LLAMA_3_PRE_TOKENIZERS:
            raise self._error(f"its tokenizer splits text as {split!r}, and not as Llama 3's. {GGUF_NOTE}")
        types: list[int] = self._get("tokenizer.ggml.token_type")
        added = {token_id for token_id, kind in enumerate(types) if kind in (_CONTROL, _USER_DEFINED)}
        vocabulary = {token: token_id for token_id, token in enumerate(self._tokens) if token_id not in added}
        merges = [tuple(merge.split(" ", 1)) for merge in self._get("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_LLAMA_3_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        untyped: Any = tokenizer
        for token_id in sorted(added):
            token = AddedToken(self._tokens[token_id], special=types[token_id] == _CONTROL, normalized=False)
            untyped.add_special_tokens([token]) if token.special else untyped.add_tokens([token])
        if wrong := [
            token_id for token_id in added if tokenizer.token_to_id(self._tokens[token_id]) != token_id
        ]:
            raise self._error(
                f"the ids of its added tokens can't be kept ({self._tokens[min(wrong)]}). {GGUF_NOTE}"
            )
        return tokenizer

    def read(self, name: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """See `Checkpoint`."""
        stored_name, tensor = self._tensors[name]
        shape = _shape(tensor)
        weight = torch.empty(shape, dtype=dtype)
        rows = weight.view(shape[0], -1) if shape else weight.view(1, 1)
        data = tensor.data.reshape(len(rows), -1)
        rows_at_once = max(1, _PIECE // rows.shape[1])
        for start in range(0, len(rows), rows_at_once):
            piece = self._gguf.quants.dequantize(data[start : start + rows_at_once], tensor.tensor_type)
            rows[start : start + len(piece)] = torch.tensor(_after_tanh_undone(stored_name, piece))
        if heads := self._permuted_heads(stored_name):
            weight = _transformers_rows(weight, heads)
        return weight.to(device)

    def read_int4(self, name: str, device: torch.device) -> Int4Weight | None:
        """See `Checkpoint`."""
        if name not in self._tensors:
            return None
        stored_name, tensor = self._tensors[name]
        unpack = {"Q4_0": _unpack_q4_0, "Q4_K": _unpack_q4_k}.get(tensor.tensor_type.name)
        if unpack is None:
            return None
        shape = _shape(tensor)
        parts = unpack(self._gguf.quants, tensor.data.reshape(shape[0], -1))
        rows = [torch.tensor(part).view(shape[0], -1) for part in parts]
        if heads := self._permuted_heads(stored_name):
            rows = [_transformers_rows(part, heads) for part in rows]
        return Int4Weight(*(part.to(device) for part in rows))

    def _add(self, path: Path) -> None:
        try:
            reader = self._gguf.GGUFReader(str(path))
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise LocalModelError(
                f"{path} can't be loaded: it is no whole GGUF file. If a download of it was broken off, run it once more "
                f"(`ollama pull` for a tag of Ollama's). The reason: {error}"
            ) from error
        field = reader.get_field("general.architecture")
        architecture = "unknown" if field is None else str(field.contents())
        if architecture != "mllama":
            raise wrong_architecture_error(str(path), architecture)
        for name, field in reader.fields.items():
            self._metadata[name.removeprefix("mllama.")] = field.contents()
        if int(self._metadata.get("split.count", 1)) > 1:
            raise self._error(
                "it is split into several files. llama.cpp's `llama-gguf-split --merge` joins them."
            )
        for tensor in reader.tensors:
            if tensor.tensor_type.name not in _readable_types(self._gguf):
                raise self._error(
                    f"its weights are {tensor.tensor_type.name}, which the library gguf does not dequantize. Take a file of "
                    "Q4_K_M, Q5_K_M, Q6_K, Q8_0 or F16."
                )
            self._stored[tensor.name] = tensor

    def _check_parts(self) -> None:
        if not any(name.startswith("model.vision_model.") for name in self._tensors):
            raise self._error(
                "it holds the text model only. Put the projector file beside it, or pass Ollama's tag, such as "
                "model='ollama:llama3.2-vision', which finds both."
            )
        if not any(name.startswith("model.language_model.") for name in self._tensors):
            raise self._error(
                "it is the projector file. Pass the file of the text model, with this one beside it."
            )

    def _parameter_name(self, name: str) -> str:
        """Name in MllamaForConditionalGeneration; empty for what has no parameter of its own."""
        if name in _TOP:
            return _TOP[name]
        if name in _WITHOUT_PARAMETER:
            return ""
        found = _LAYER.fullmatch(name)
        vision_layer = _PROJECTOR_LAYER if "v.blk.0.ln1.weight" in self._stored else _VISION_LAYER
        part = found and (vision_layer if found[1] else _TEXT_LAYER).get(found[3])
        if not found or not part:
            raise self._error(f"its tensor {name!r} is not known here. {GGUF_NOTE}")
        stem = {
            None: "model.language_model.layers",
            "v.": "model.vision_model.transformer.layers",
            "v.global.": "model.vision_model.global_transformer.layers",
        }[found[1]]
        return f"{stem}.{found[2]}.{part}" + (f".{found[4]}" if found[4] else "")

    def _permuted_heads(self, stored_name: str) -> int | None:
        """Number of heads of a query or key projection, whose rows are interleaved; else None.

        Cross-attention's are, too: the converter takes them for self-attention's (ollama/ollama#10716).
        """
        found = _QUERY_OR_KEY.fullmatch(stored_name)
        if not found:
            return None
        if found[1]:
            return self._get("vision.attention.head_count")
        return self._get("attention.head_count" if found[2] == "q" else "attention.head_count_kv")

    def _text_config(self) -> dict[str, Any]:
        return {
            "vocab_size": self._shape_of("lm_head.weight")[0],
            "hidden_size": self._get("embedding_length"),
            "intermediate_size": self._get("feed_forward_length"),
            "num_hidden_layers": self._get("block_count"),
            "num_attention_heads": self._get("attention.head_count"),
            "num_key_value_heads": self._get("attention.head_count_kv"),
            "cross_attention_layers": list(self._get("attention.cross_attention_layers")),
            "max_position_embeddings": self._get("context_length"),
            # The nearest short number: the file has 32 bits of it.
            "rms_norm_eps": float(f"{self._get('attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_parameters": self._rope_parameters(),
            "bos_token_id": self._tokens.index("<|begin_of_text|>"),
            "eos_token_id": self._eos_token_ids(),
            "pad_token_id": self._metadata.get("tokenizer.ggml.padding_token_id"),
            "tie_word_embeddings": False,
        }

    def _vision_config(self) -> dict[str, Any]:
        max_tiles = self._get("vision.max_num_tiles")
        return {
            "hidden_size": self._get("vision.embedding_length"),
            "intermediate_size": self._get("vision.feed_forward_length"),
            "num_hidden_layers": self._get("vision.block_count"),
            "num_global_layers": self._get("vision.global.block_count"),
            "attention_heads": self._get("vision.attention.head_count"),
            "image_size": self._get("vision.image_size"),
            "patch_size": self._get("vision.patch_size"),
            "num_channels": self._shape_of("model.vision_model.patch_embedding.weight")[1],
            "max_num_tiles": max_tiles,
            "norm_eps": float(f"{self._get('vision.attention.layer_norm_epsilon'):.6g}"),
            "intermediate_layers_indices": list(self._get("vision.intermediate_layers_indices")),
            "vision_output_dim": self._shape_of("model.multi_modal_projector.weight")[1],
            "supported_aspect_ratios": [list(one) for one in supported_aspect_ratios(max_tiles)],
        }

    def _rope_parameters(self) -> dict[str, Any]:
        theta = float(self._get("rope.freq_base"))
        if "rope_freqs.weight" not in self._stored:
            return {"rope_type": "default", "rope_theta": theta}
        factors = self._stored["rope_freqs.weight"].data.astype(np.float64).reshape(-1)
        expected = _llama_3_rope_factors(theta, 2 * len(factors))
        if np.abs(factors / expected - 1).max() > _ROPE_TOLERANCE:
            raise self._error(f"its rotary embedding is scaled in another way than Llama 3.2's. {GGUF_NOTE}")
        return _LLAMA_3_ROPE | {"rope_theta": theta}

    def _eos_token_ids(self) -> list[int]:
        named = {token_id for token_id, token in enumerate(self._tokens) if token in _END_TOKENS}
        listed = set(map(int, self._metadata.get("tokenizer.ggml.eos_token_ids", ())))
        if (single := self._metadata.get("tokenizer.ggml.eos_token_id")) is not None:
            listed.add(int(single))
        return sorted(named | listed)

    @cached_property
    def _tokens(self) -> list[str]:
        return list(self._get("tokenizer.ggml.tokens"))

    def _get(self, key: str) -> Any:
        if key not in self._metadata:
            raise self._error(f"its metadata lacks {key!r}. {GGUF_NOTE}")
        return self._metadata[key]

    def _shape_of(self, name: str) -> tuple[int, ...]:
        shape = self.shapes.get(name)
        if shape is None:
            raise self._error(f"it lacks the weights of {name}. {GGUF_NOTE}")
        return shape

    def _error(self, hint: str) -> LocalModelError:
        return LocalModelError(f"{self._name} can't be loaded: {hint}")


def _import_gguf() -> Any:
    try:
        import gguf  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise MissingDependencyError(
            "GGUF files need the library gguf: pip install 'llama-vision[local,gguf]'"
        ) from missing
    return gguf


def _readable_types(gguf: Any) -> set[str]:
    return {kind.name for kind in gguf.quants._type_traits} | {"F32", "F16"}  # noqa: SLF001 - the library's list of them


def _shape(tensor: Any) -> tuple[int, ...]:
    """Shape in torch's order; GGUF has the fastest dimension first."""
    return tuple(int(size) for size in reversed(tensor.shape))


def _transformers_rows(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Order rows as transformers does for its form of rotary embedding: row 2j+s of a head is its row s*d/2+j."""
    return weight.view(heads, len(weight) // heads // 2, 2, -1).transpose(1, 2).reshape(weight.shape)


def _unpack_q4_0(_: Any, blocks: "npt.NDArray[np.uint8]") -> "tuple[npt.NDArray[Any], ...]":
    """Unpack blocks of 32, two bytes of scale and sixteen of codes: codes, scales, zeros."""
    blocks = blocks.reshape(-1, 18)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return codes, scale, np.zeros_like(scale)


def _unpack_q4_k(quants: Any, blocks: "npt.NDArray[np.uint8]") -> "tuple[npt.NDArray[Any], ...]":
    """Unpack blocks of 256, with scales and minima of eight groups in six bits: codes, scales, zeros."""
    blocks = blocks.reshape(-1, 144)
    d, d_min = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    scale, minimum = quants.Q4_K.get_scale_min(blocks[:, 4:16])
    packed = blocks[:, 16:].reshape(-1, 4, 32)
    codes = np.stack([packed & 15, packed >> 4], axis=2)
    scale = d * scale.astype(np.float32)
    return codes, scale, 8 * scale - d_min * minimum.astype(np.float32)


def _after_tanh_undone(name: str, values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    if not _GATE_AFTER_TANH.fullmatch(name):
        return values
    nearest_to_one = 1 - 2.0**-24  # in float32 tanh of 9 is 1
    return np.arctanh(np.clip(values.astype(np.float64), -nearest_to_one, nearest_to_one)).astype(np.float32)


def _llama_3_rope_factors(theta: float, dim: int) -> "npt.NDArray[np.float64]":
    """Compute how much slower each frequency turns than in plain rotary embedding, as transformers' `llama3` does: (dim / 2,)."""
    low, high = _LLAMA_3_ROPE["low_freq_factor"], _LLAMA_3_ROPE["high_freq_factor"]
    original = _LLAMA_3_ROPE["original_max_position_embeddings"]
    wavelengths = 2 * math.pi * theta ** (np.arange(0, dim, 2) / dim)
    smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / _LLAMA_3_ROPE["factor"] + smooth)

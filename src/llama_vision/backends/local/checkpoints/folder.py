"""A folder as the Hugging Face hub has them: config.json, tokenizer.json and *.safetensors, plain or quantized."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.image_processing_base import ImageProcessingMixin

from llama_vision.backends.local.checkpoints.bitsandbytes import BitsAndBytes
from llama_vision.backends.local.checkpoints.checkpoint import parameter_name
from llama_vision.backends.local.checkpoints.compressed_tensors import CompressedTensors
from llama_vision.backends.local.checkpoints.gptq import Awq, Gptq
from llama_vision.backends.local.int4_linear import Int4Weight
from llama_vision.core.errors import LocalModelError

_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_GIT_LFS = b"version https://git-lfs"
_HEADER_LENGTH_BYTES = 8  # https://huggingface.co/docs/safetensors#format


class WeightFormat(Protocol):
    """How a quantized checkpoint stores the weight of a linear layer."""

    @property
    def kind(self) -> str:
        """Such as `GPTQ int4`."""
        ...

    def is_quantized(self, tensors: Collection[str]) -> bool:
        """Whether a layer with tensors of these names (`weight`, `weight_scale`, ...) is quantized."""
        ...

    def dequantize(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Dequantize a layer's weight: (out_features, in_features)."""
        ...

    def int4(self, tensors: Mapping[str, torch.Tensor]) -> Int4Weight | None:
        """A layer's weight as it is stored; None where it is not in four bits with a scale per group of columns."""
        ...


_FORMATS = {
    "bitsandbytes": BitsAndBytes,
    "compressed-tensors": CompressedTensors,
    "gptq": Gptq,
    "awq": Awq,
}
"""By `quant_method` of config.json's `quantization_config`."""


class FolderCheckpoint:
    """See `Checkpoint`.

    Raises:
        LocalModelError: A file is missing, cut off or no Mllama, or the weights are quantized in an unsupported way.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        files = _weight_files(folder)
        self.config: Any = _untyped(AutoConfig).from_pretrained(folder)
        if self.config.model_type != "mllama":
            raise wrong_architecture_error(str(folder), self.config.model_type)
        self.image_processor_config: Mapping[str, Any]
        self.image_processor_config, _ = _untyped(ImageProcessingMixin).get_image_processor_dict(folder)
        self._format = _weight_format(folder, getattr(self.config, "quantization_config", None))
        self._files = {path: _open(path) for path in files}
        self._file_of = {name: file for file in self._files.values() for name in file.keys()}  # noqa: SIM118 - no mapping
        self.shapes, self._tensors = self._layers()

    @property
    def kind(self) -> str:
        """The quantization, else the dtype."""
        return (
            str(self.config.dtype or "").removeprefix("torch.") if self._format is None else self._format.kind
        )

    @cached_property
    def generation_config(self) -> Any:
        """Of generation_config.json, else of config.json."""
        if (self._folder / "generation_config.json").is_file():
            return _untyped(GenerationConfig).from_pretrained(self._folder)
        return _untyped(GenerationConfig).from_model_config(self.config)

    def tokenizer(self) -> Tokenizer:
        """See `Checkpoint`."""
        return _untyped(AutoTokenizer).from_pretrained(self._folder).backend_tokenizer

    def read(self, name: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """See `Checkpoint`."""
        tensors = self._tensors[name]
        if isinstance(tensors, str):
            # A copy: what is mapped would change, or end the process, with the file.
            return self._file_of[tensors].get_tensor(tensors).to(device, dtype, copy=True)
        assert self._format is not None
        return self._format.dequantize(self._stored(tensors, device)).to(dtype)

    def read_int4(self, name: str, device: torch.device) -> Int4Weight | None:
        """See `Checkpoint`."""
        tensors = self._tensors.get(name)
        if self._format is None or not isinstance(tensors, dict):
            return None
        return self._format.int4(self._stored(tensors, device))

    def _stored(self, tensors: Mapping[str, str], device: torch.device) -> dict[str, torch.Tensor]:
        return {suffix: self._file_of[raw].get_tensor(raw).to(device) for suffix, raw in tensors.items()}

    def _layers(self) -> tuple[dict[str, tuple[int, ...] | None], dict[str, str | dict[str, str]]]:
        """Shapes, and the tensors that each weight is stored in: one, or those of a quantized layer by suffix."""
        shapes: dict[str, tuple[int, ...] | None] = {}
        stored: dict[str, str | dict[str, str]] = {}
        for layer, tensors in _by_layer(self._file_of).items():
            is_quantized = self._format is not None and self._format.is_quantized(tensors)
            for suffix, raw in tensors.items():
                if is_quantized and suffix != "bias":
                    continue
                name = parameter_name(raw)
                stored[name] = raw
                shapes[name] = tuple(self._file_of[raw].get_slice(raw).get_shape())
            if is_quantized:
                name = parameter_name(f"{layer}.weight")
                stored[name], shapes[name] = tensors, None
        return shapes, stored


def wrong_architecture_error(model: str, architecture: str) -> LocalModelError:
    """The checkpoint is not a Mllama."""
    return LocalModelError(
        f"{model} can't be loaded: it is of the kind {architecture!r}, and this backend runs Llama 3.2 Vision ('mllama') only. "
        "Let a server run it, such as vLLM or Ollama, and pass provider='vllm' or provider='ollama'."
    )


def _weight_format(folder: Path, quantization: Any) -> WeightFormat | None:
    if quantization is None:
        return None
    values = cast(
        "dict[str, Any]", quantization if isinstance(quantization, dict) else quantization.to_dict()
    )
    method = str(values.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in values else "unknown"))
    if method not in _FORMATS:
        raise LocalModelError(
            f"{folder} can't be loaded: its weights are quantized by {method!r}, and this backend reads {', '.join(_FORMATS)} and "
            "GGUF. Take a checkpoint of one of these kinds, or the original weights with LocalSettings(quantization='int8')."
        )
    try:
        return _FORMATS[method](values)
    except ValueError as error:
        raise LocalModelError(
            f"{folder} can't be loaded: {error}. Take another checkpoint, or the original weights with "
            "LocalSettings(quantization='int8')."
        ) from error


def _by_layer(names: Collection[str]) -> dict[str, dict[str, str]]:
    """Group tensors by layer: {layer: {suffix: name}}, with suffixes such as `weight` or `weight.absmax`."""
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        layer, separator, _ = name.partition(".weight.")
        if not separator:
            layer = name.rpartition(".")[0]
        layers[layer][name[len(layer) + 1 :]] = name
    return layers


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _INDEX).is_file():
        names = sorted(set(json.loads((folder / _INDEX).read_text())["weight_map"].values()))
    elif (folder / _WEIGHTS).is_file():
        names = [_WEIGHTS]
    else:
        raise _no_weights_error(folder)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise LocalModelError(
            f"{folder} can't be loaded: it was downloaded in part: {len(missing)} of {len(names)} files are missing "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). "  # noqa: PLR2004 - as many as it names
            "Run the same download once more; `hf download` fetches only what is missing."
        )
    return [folder / name for name in names]


def _no_weights_error(folder: Path) -> LocalModelError:
    if (folder / "params.json").is_file() and list(folder.glob("*.pth")):
        hint = (
            "it is Meta's own layout. Take the same weights from the Hugging Face hub (meta-llama/Llama-3.2-11B-Vision-Instruct), or convert "
            "them with transformers' `convert_mllama_weights_to_hf.py`."
        )
    elif pickled := sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pth")):
        hint = (
            f"{pickled[0].name} is a pickle, which could run any code. Take the repository's *.safetensors, or write them: "
            "`MllamaForConditionalGeneration.from_pretrained(folder).save_pretrained(other)`."
        )
    elif (folder / "adapter_config.json").is_file():
        hint = "it is a LoRA adapter. Pass the model it was trained on, and LocalSettings(adapter=...) with this folder."
    else:
        hint = (
            "the folder has to hold config.json, *.safetensors, tokenizer.json and preprocessor_config.json. There is no file "
            f"named {_WEIGHTS} or {_INDEX}; `hf download` fetches what is missing."
        )
    return LocalModelError(f"{folder} can't be loaded: {hint}")


def _open(path: Path) -> Any:
    """Open a file of weights, and read its header. A file that is cut off is refused."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_GIT_LFS))
        if start == _GIT_LFS:
            raise LocalModelError(
                f"{path} can't be loaded: it is Git's pointer to the weights. Run `git lfs pull` in its folder."
            )
        length = int.from_bytes(start[:_HEADER_LENGTH_BYTES], "little")
        file.seek(_HEADER_LENGTH_BYTES)
        is_cut = size < _HEADER_LENGTH_BYTES + length
        header: dict[str, Any] = {} if is_cut else json.loads(file.read(length))
    header.pop("__metadata__", None)
    expected = (
        _HEADER_LENGTH_BYTES + length + max((one["data_offsets"][1] for one in header.values()), default=0)
    )
    if size < expected:
        raise LocalModelError(
            f"{path} can't be loaded: it is cut off after {size:,} bytes"
            + ("" if is_cut else f" of {expected:,}")
            + ". "
            "Delete this file and run the same download once more; it fetches only what is missing."
        )
    return safe_open(path, framework="pt")


def _untyped(transformers_class: Any) -> Any:
    """Hide a class of transformers, whose methods are not annotated, from the type checker."""
    return transformers_class

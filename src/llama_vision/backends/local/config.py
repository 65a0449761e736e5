"""Settings of the local model."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from llama_vision.backends.local.device_map import names_modules
from llama_vision.core.errors import ConfigurationError, LocalModelError
from llama_vision.providers.local import LOCAL

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Quantization: TypeAlias = Literal["int4", "int8", "fp8", "auto"]
DeviceMapSetting: TypeAlias = Literal["auto"] | Mapping[str, str | int]

TINY_MODEL = "tiny"
"""Name of the bundled model, which needs no download and no GPU."""

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_DEVICE = re.compile(r"[a-z][a-z0-9_]*(:\d+)?")

_MINIMUMS = {
    "max_batch_size": 1,
    "max_model_len": 2,
    "kv_cache_bytes": 0,
    "image_cache_bytes": 0,
    "prefix_cache_bytes": 0,
    "max_waiting": 1,
}

_OPTIONAL = ("max_model_len", "kv_cache_bytes", "image_cache_bytes", "prefix_cache_bytes")


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Settings of the local model.

    All users in the process with equal `device`, `device_map`, `dtype`, `quantization` and `adapter` share one copy of the weights.

    Attributes:
        max_batch_size: Requests in the running batch at most. Further requests wait.
        max_model_len: Prompt and output tokens of a request at most; None takes the model's context window.
        kv_cache_bytes: Size of the KV cache, which is allocated once, with the model: the 11B needs 131 kB for each token
            and 52 MB for each tile of 560 x 560 pixels, of running requests and of the two caches below. Requests for
            which it has no room at the moment wait. None takes what may be of use, of a GPU's free memory as much as there
            is, of a computer's half.
        image_cache_bytes: How much of the KV cache may keep encoded images that no running request has, for the next
            request with the same ones. 0 turns that off. None sets no limit: what running requests need is evicted first.
        prefix_cache_bytes: How much of it may keep tokens of finished requests, so that prefill of a next turn, or of any
            prompt that begins alike, starts where it differs. 0 turns that off. None as above.
        max_waiting: Requests in the queue at most. One more is refused.
        device: Such as `cpu`, `mps`, `cuda` or `cuda:1`. None takes the fastest there is.
        device_map: As in transformers: `auto` fills the GPUs in order with the vision encoder, the embedding and the decoder layers,
            and gives the CPU what has no room there, which slows every token down. Or a mapping from module names to devices,
            such as `{"": 0, "model.language_model.layers.20": 1, "lm_head": "cuda:1"}`, where the longest name decides, `""`
            stands for all that is not named, and a layer is not divided. None: one device. With several, decode steps run without CUDA graphs.
        dtype: Of weights and activations. `auto` keeps the checkpoint's, except that small models run in `float32` on a
            CPU, where that is faster.
        quantization: `int8` quantizes the weights of all linear layers but the LM head, with a scale per row: half the
            memory, on any device. `int4` quantizes those of the text decoder's layers to 4 bits in groups of 128 columns, and the
            vision encoder's to 8: a third of the memory. On NVIDIA's GPUs both have kernels, which nobody has timed; MPS is slower
            with them, and a CPU that computes in `bfloat16` decodes faster. With `int4` weights that a checkpoint has in 4 bits of equal steps (GPTQ, AWQ, compressed-tensors, GGUF's
            Q4_0 and Q4_K) are kept as they are.
            `fp8` computes in 8-bit floats, on NVIDIA's Hopper GPUs (H100, H200); the vision encoder and the
            cross-attention layers stay in `bfloat16`. Logits differ a little, the tiny model's by 0.6% with `int8`, as
            much as with `bfloat16`, by 3% with `fp8` and by 10% with `int4`. None changes nothing. `auto` takes None, `int8` or
            `int4`, the first with which weights and caches fit into what is free on the device.
        adapter: Folder of a LoRA adapter in PEFT's layout, which is merged into the weights while they are loaded.

    Raises:
        ConfigurationError: A value is of another type or out of range. Whether a device is there is known where it is used.
    """

    max_batch_size: int = 16
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    image_cache_bytes: int | None = None
    prefix_cache_bytes: int | None = None
    max_waiting: int = 4096
    device: str | None = None
    dtype: Precision = "auto"
    quantization: Quantization | None = None
    adapter: str | None = None
    device_map: DeviceMapSetting | None = field(default=None, hash=False)  # a dict has no hash

    def __post_init__(self) -> None:
        for name, minimum in _MINIMUMS.items():
            value: object = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigurationError(f"{name} has to be an integer, and is {value!r}.")
            if value < minimum:
                raise ConfigurationError(f"{name} has to be {minimum} or more, and is {value!r}.")
        if self.device is not None and not _DEVICE.fullmatch(str(self.device)):
            raise ConfigurationError(
                f"device has to be None or such as 'cpu', 'cuda' or 'cuda:1', and is {self.device!r}."
            )
        self._check_device_map()
        if self.dtype not in Precision.__args__:
            raise ConfigurationError(f"dtype has to be one of {Precision.__args__}, and is {self.dtype!r}.")
        if self.quantization not in (None, *Quantization.__args__):
            raise ConfigurationError(
                f"quantization has to be None or one of {Quantization.__args__}, and is {self.quantization!r}."
            )
        if self.adapter is not None and not (isinstance(self.adapter, str) and self.adapter):  # pyright: ignore[reportUnnecessaryIsInstance] - of users
            raise ConfigurationError(
                f"adapter has to be None or the path of a folder as a string, and is {self.adapter!r}."
            )
        if self.quantization == "fp8" and self.dtype not in ("auto", "bfloat16"):
            raise ConfigurationError(
                f"quantization='fp8' goes with dtype='bfloat16', not with {self.dtype!r}."
            )

    def _check_device_map(self) -> None:
        """Check the device map, and keep a copy with devices as strings."""
        given: Any = self.device_map
        if given is None:
            return
        if self.device is not None:
            raise ConfigurationError("device is for one device, and device_map for several: leave one out.")
        if isinstance(given, Mapping):
            entries = cast("Mapping[object, object]", given).items()
            devices = {str(module): _device_name(module, device) for module, device in entries}
            object.__setattr__(self, "device_map", devices)
        elif given != "auto":
            raise ConfigurationError(
                "device_map has to be 'auto' or a mapping from module names to devices, such as {'': 0, 'lm_head': 'cuda:1'}, and is "
                f"{given!r}. For one device it is device='cuda:1'."
            )


def _device_name(module: object, device: object) -> str:
    """Write a device of a device map as a string; integers are CUDA devices, as in transformers."""
    if not isinstance(module, str) or not names_modules(module):
        raise ConfigurationError(
            "device_map names modules as transformers does, such as 'model.vision_model', 'model.language_model.layers.0', "
            f"'lm_head' or '' for the rest, and divides no layer. It has no module {module!r}."
        )
    name = f"cuda:{device}" if isinstance(device, int) and not isinstance(device, bool) else str(device)
    if name == "disk" or not _DEVICE.fullmatch(name):
        raise ConfigurationError(
            f"device_map takes devices such as 0, 'cuda:1' or 'cpu', and that of {module!r} is {device!r}."
        )
    return "cuda:0" if name == "cuda" else name


def parse_local_settings(values: Mapping[str, Any]) -> LocalSettings:
    """Build settings from a mapping.

    Args:
        values: The fields of `LocalSettings`, by name.

    Returns:
        The settings.

    Raises:
        ConfigurationError: A name is not known, or a value is out of range.
    """
    known = [one.name for one in fields(LocalSettings)]
    if unknown := sorted(str(name) for name in values if name not in known):
        raise ConfigurationError(
            f"There is no local setting {', '.join(unknown)}. There are: {', '.join(known)}."
        )
    return LocalSettings(**values)


def is_model(model: str) -> bool:
    """Tell whether a name can be that of a model on this machine.

    That is one of the record's, a folder or a file, a tag of Ollama's, or an id on the Hugging Face hub.

    Args:
        model: The name. An id on the hub has one slash.

    Returns:
        Whether it can.
    """
    names = {name for info in LOCAL.models for name in (info.name, info.id)}
    if model in names or model.startswith("ollama:") or _HUB_ID.fullmatch(model):
        return True
    path = Path(model).expanduser()
    return bool(model) and (path.is_dir() or path.is_file())


def check_model(model: str) -> None:
    """Refuse a name that nothing has, before the hub is asked again and again.

    Args:
        model: The name, as `is_model` takes it.

    Raises:
        LocalModelError: It is none of these; the text says what there is.
    """
    if is_model(model):
        return
    names = [info.name for info in LOCAL.models]
    close = difflib.get_close_matches(model, names, n=1)
    raise LocalModelError(
        f"There is no model {model[:200]!r} on this machine. {f'Did you mean {close[0]!r}? ' if close else ''}It can be "
        f"{', '.join(names)}, a folder that holds weights, a GGUF file, `ollama:` and a tag, or an id on the Hugging Face hub, such as {LOCAL.models[1].id}."
    )

"""Model loader: weights, tokenizer and configuration of a checkpoint, shared by all engines of the process."""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakValueDictionary

from llama_vision.backends.local.config import TINY_MODEL, LocalSettings
from llama_vision.backends.local.guided_decoding import GrammarCompiler
from llama_vision.core.errors import LocalModelError, MissingDependencyError

try:
    import torch
    import transformers  # noqa: F401 - its absence is reported here  # pyright: ignore[reportUnusedImport]
except ImportError as missing:
    raise MissingDependencyError(
        "The local model needs torch and transformers: pip install 'llama-vision[local]'"
    ) from missing

from llama_vision.backends.local.checkpoints.checkpoint import Checkpoint
from llama_vision.backends.local.checkpoints.find import open_checkpoint
from llama_vision.backends.local.checkpoints.lora import LoraAdapter
from llama_vision.backends.local.device_map import EMBEDDING, DeviceMap, layer_indices, modules_by_device
from llama_vision.backends.local.devices import auto_devices
from llama_vision.backends.local.load_errors import check_tokenizer, device_error, load_error
from llama_vision.backends.local.memory_plan import MemoryPlan, check_memory
from llama_vision.backends.local.quantization import check_quantization, is_slower_than_bfloat16
from llama_vision.backends.local.weights import load_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TINY_MODEL_PATH = Path(__file__).parent / "tiny"
"""Folder of the bundled model."""

_logger = logging.getLogger("llama_vision")


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class LoadedModel:
    """A loaded checkpoint. It is never modified, so several engines may use it at the same time.

    Attributes:
        model: The `Mllama`, in evaluation mode on its devices.
        device_map: Where its modules are.
        image_processor_config: As the checkpoint has it; `parse_image_processor_config` reads it.
        tokenizer: Encodes special tokens in text as plain text: special tokens are inserted by their ids.
        context_window: In tokens, prompt and output together.
    """

    model: Any
    device_map: DeviceMap
    image_processor_config: Mapping[str, Any]
    tokenizer: "Tokenizer"
    context_window: int
    eos_token_ids: frozenset[int]
    grammar_compiler: GrammarCompiler

    @property
    def device(self) -> "torch.device":
        """Device of the embedding, where token ids go; with one device that of all weights."""
        return self.device_map[EMBEDDING]

    @property
    def num_bytes(self) -> int:
        """Memory of the weights."""
        return sum(tensor.nbytes for tensor in (*self.model.parameters(), *self.model.buffers()))


def default_device() -> "torch.device":
    """The fastest device there is: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_model(model: str, settings: LocalSettings | None = None) -> LoadedModel:
    """Load a checkpoint, once in the process for as long as it is in use with equal settings of how it is loaded.

    These are `device`, `device_map`, `dtype`, `quantization` and `adapter`. `model` is `tiny`, a folder, a GGUF file, `ollama:` and a tag of Ollama's, or an id on the Hugging Face hub, which is
    downloaded unless it is in its cache.

    Raises:
        LocalModelError: It can't be found, read or fitted into memory; the text says what to do.
        MissingDependencyError: A library that its kind needs is not installed.
    """
    settings = settings or LocalSettings()
    devices = candidate_devices(settings)
    spread = settings.device_map
    placement = sorted(spread.items()) if isinstance(spread, Mapping) else (spread, devices)
    key = model, str(placement), settings.dtype, settings.quantization, settings.adapter
    with _lock:
        own_lock = _locks.setdefault(key, threading.Lock())
    with own_lock:
        loaded = _loaded.get(key)
        if loaded is None:
            loaded = _loaded[key] = _load_uncached(model, devices, settings)
        return loaded


_Key: TypeAlias = tuple[str, str, str, str | None, str | None]
_loaded: WeakValueDictionary[_Key, LoadedModel] = WeakValueDictionary()
_locks: dict[_Key, threading.Lock] = {}
_lock = threading.Lock()


def _reset_after_fork() -> None:
    """Load anew after a fork: a GPU's memory is not copied, and a lock may be held by a thread of the parent's."""
    global _lock  # noqa: PLW0603 - as said
    _lock = threading.Lock()
    _locks.clear()
    _loaded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _load_uncached(model: str, devices: "Sequence[torch.device]", settings: LocalSettings) -> LoadedModel:
    path = checkpoint_path(model)
    plans: list[MemoryPlan] = []
    names = ", ".join(map(str, devices))
    began = time.monotonic()
    try:
        adapter = LoraAdapter(settings.adapter) if settings.adapter else None
        checkpoint = open_checkpoint(
            path, lambda config: plans.append(_plan(model, config, devices, settings))
        )
        (plan,) = plans
        settings, device_map = plan.settings, plan.device_map
        mllama = load_weights(
            path, checkpoint, adapter, device_map, settings, shows_progress=model != TINY_MODEL
        )
        loaded = _with_tokenizer(path, checkpoint, mllama, device_map)
    except (LocalModelError, MissingDependencyError):
        raise
    except Exception as error:
        raise load_error(model, names, error) from error
    _warn(model, plan)
    _logger.info(
        "Loaded %s on %s, %s, quantization %s: %d bytes in %.1f s, from %s",
        *(
            model,
            ", ".join(map(str, modules_by_device(device_map))),
            loaded.model.dtype,
            settings.quantization,
        ),
        *(loaded.num_bytes, time.monotonic() - began, checkpoint.kind),
    )
    return loaded


def _plan(model: str, config: Any, devices: "Sequence[torch.device]", settings: LocalSettings) -> MemoryPlan:
    plan = check_memory(model, config, devices, settings)
    for device in modules_by_device(plan.device_map):
        check_quantization(settings.quantization, device)
    return plan


def _warn(model: str, plan: MemoryPlan) -> None:
    """Warn of what will be slower than it might be."""
    quantization = plan.settings.quantization
    slower = [str(one.device) for one in plan.devices if is_slower_than_bfloat16(quantization, one.device)]
    if slower:
        _logger.warning(
            "quantization=%r saves memory on %s and no time: replies take longer than without it.",
            quantization,
            ", ".join(slower),
        )
    if plan.cpu_layers:
        on_cpu = sum(one.weights for one in plan.devices if one.device.type == "cpu")
        _logger.warning(
            "%d of %d layers of %s run on the CPU: for each token %.1f GB of weights are read from the computer's memory, which takes ten "
            "times as long as from a GPU's, or more. With device_map='auto', quantization='int8' or 'int4' and a lower max_batch_size "
            "or kv_cache_bytes leave more layers to the GPUs.",
            *(plan.cpu_layers, len(layer_indices(plan.device_map)), model, on_cpu / 1e9),
        )
    if not plan.fits:
        _logger.warning("%s gets a smaller KV cache than its settings can use: %s", model, plan)


def _with_tokenizer(path: str, checkpoint: Checkpoint, mllama: Any, device_map: DeviceMap) -> LoadedModel:
    tokenizer = checkpoint.tokenizer()
    tokenizer.encode_special_tokens = True
    check_tokenizer(path, tokenizer, mllama.model.language_model.embed_tokens.num_embeddings)
    mllama.generation_config = checkpoint.generation_config
    eos: Any = mllama.generation_config.eos_token_id or mllama.config.text_config.eos_token_id
    eos_token_ids = frozenset[int]([eos] if isinstance(eos, int) else eos)
    return LoadedModel(
        model=mllama,
        device_map=device_map,
        image_processor_config=checkpoint.image_processor_config,
        tokenizer=tokenizer,
        context_window=mllama.config.text_config.max_position_embeddings,
        eos_token_ids=eos_token_ids,
        grammar_compiler=GrammarCompiler(tokenizer, eos_token_ids),
    )


def checkpoint_path(model: str) -> str:
    """What a model's name stands for: the bundled model's folder for `tiny`, else itself."""
    return str(TINY_MODEL_PATH) if model == TINY_MODEL else model


def candidate_devices(settings: LocalSettings) -> "list[torch.device]":
    """The devices that a model may be on, those of `device_map` else `device`, in the order in which they are filled.

    Raises:
        LocalModelError: One is not there.
    """
    if settings.device_map is None:
        return [find_device(settings.device)]
    if settings.device_map == "auto":
        return auto_devices()
    for name in settings.device_map.values():
        find_device(str(name))
    return [torch.device(name) for name in dict.fromkeys(settings.device_map.values())]


def find_device(name: str | None) -> "torch.device":
    """Check the device before 22 GB are read for one that is not there; None is the fastest.

    Raises:
        LocalModelError: It is not there.
    """
    requested = name or default_device()
    try:
        return torch.empty(0, device=requested).device
    except (RuntimeError, AssertionError) as error:  # the second is torch's for "no CUDA here"
        raise device_error(str(requested), error) from error

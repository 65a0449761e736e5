"""Model loader: weights, tokenizer and configuration of a checkpoint, shared by all engines of the process."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakValueDictionary

from llama_vision.backends.local.config import TINY_MODEL, LocalSettings
from llama_vision.backends.local.guided_decoding import GrammarCompiler
from llama_vision.core.errors import LocalModelError, MissingDependencyError

try:
    import torch
    from transformers import AutoConfig, AutoTokenizer, MllamaForConditionalGeneration
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.utils import logging as transformers_logging
except ImportError as missing:
    raise MissingDependencyError(
        "The local model needs torch and transformers: pip install 'llama-vision[local]'"
    ) from missing

from llama_vision.backends.local.load_errors import (
    check_weights,
    device_error,
    load_error,
    wrong_architecture_error,
)
from llama_vision.backends.local.quantization import check_quantization, quantize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TINY_MODEL_PATH = Path(__file__).parent / "tiny"
"""Folder of the bundled model."""

_SMALL_MODEL_PARAMETERS = 1_000_000_000

_logger = logging.getLogger("llama_vision")


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class LoadedModel:
    """A loaded checkpoint. It is never modified, so several engines may use it at the same time.

    Attributes:
        model: The MllamaForConditionalGeneration, in evaluation mode on its device.
        image_processor_config: As the checkpoint has it; `parse_image_processor_config` reads it.
        tokenizer: Encodes special tokens in text as plain text: special tokens are inserted by their ids.
        context_window: In tokens, prompt and output together.
    """

    model: Any
    image_processor_config: Mapping[str, Any]
    tokenizer: "Tokenizer"
    context_window: int
    eos_token_ids: frozenset[int]
    grammar_compiler: GrammarCompiler

    @property
    def device(self) -> "torch.device":
        """Device of the weights."""
        return self.model.device

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
    """Load a checkpoint, once in the process for as long as it is in use with equal `device`, `dtype` and `quantization`.

    `model` is `tiny`, a folder, or an id on the Hugging Face hub, which is downloaded unless it is in its cache.

    Raises:
        LocalModelError: It can't be found, read or fitted into memory; the text says what to do.
    """
    settings = settings or LocalSettings()
    device = _device(settings)
    check_quantization(settings.quantization, device)
    key = model, str(device), settings.dtype, settings.quantization
    with _lock:
        own_lock = _locks.setdefault(key, threading.Lock())
    with own_lock:
        loaded = _loaded.get(key)
        if loaded is None:
            loaded = _loaded[key] = _load_uncached(model, device, settings)
        return loaded


_Key: TypeAlias = tuple[str, str, str, str | None]
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


def _load_uncached(model: str, device: "torch.device", settings: LocalSettings) -> LoadedModel:
    path = str(TINY_MODEL_PATH) if model == TINY_MODEL else model
    try:
        with _no_progress_bar() if model == TINY_MODEL else contextlib.nullcontext():
            began = time.monotonic()
            loaded = _from_pretrained(path, device, settings)
    except LocalModelError:
        raise
    except Exception as error:
        raise load_error(model, device, error) from error
    _logger.info(
        "Loaded %s on %s, %s, quantization %s: %d bytes in %.1f s",
        *(model, device, loaded.model.dtype, settings.quantization),
        *(loaded.num_bytes, time.monotonic() - began),
    )
    return loaded


def _from_pretrained(path: str, device: "torch.device", settings: LocalSettings) -> LoadedModel:
    config = _untyped(AutoConfig).from_pretrained(path)
    if config.model_type != "mllama":
        raise wrong_architecture_error(path, config.model_type)
    tokenizer: Tokenizer = _untyped(AutoTokenizer).from_pretrained(path).backend_tokenizer
    tokenizer.encode_special_tokens = True
    image_processor_config, _ = _untyped(ImageProcessingMixin).get_image_processor_dict(path)
    dtype = "bfloat16" if settings.quantization == "fp8" else settings.dtype
    mllama, loading_info = _untyped(MllamaForConditionalGeneration).from_pretrained(
        path, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
    )
    check_weights(path, loading_info)
    mllama = _to_device(mllama.eval(), device, settings)
    eos: Any = mllama.generation_config.eos_token_id or config.text_config.eos_token_id
    eos_token_ids = frozenset[int]([eos] if isinstance(eos, int) else eos)
    return LoadedModel(
        model=mllama,
        image_processor_config=image_processor_config,
        tokenizer=tokenizer,
        context_window=config.text_config.max_position_embeddings,
        eos_token_ids=eos_token_ids,
        grammar_compiler=GrammarCompiler(tokenizer, eos_token_ids),
    )


def _untyped(transformers_class: Any) -> Any:
    """Hide a class of transformers, whose methods are not annotated, from the type checker."""
    return transformers_class


def _device(settings: LocalSettings) -> "torch.device":
    """Check the device before 22 GB are read for one that is not there."""
    requested = settings.device or default_device()
    try:
        return torch.empty(0, device=requested).device
    except (RuntimeError, AssertionError) as error:  # the second is torch's for "no CUDA here"
        raise device_error(str(requested), error) from error


def _to_device(mllama: Any, device: "torch.device", settings: LocalSettings) -> Any:
    """Quantize and move to the device. A CPU runs a small model fastest in float32; a large one would not fit."""
    is_auto = device.type == "cpu" and settings.dtype == "auto"
    if is_auto and mllama.num_parameters() < _SMALL_MODEL_PARAMETERS:
        mllama = mllama.float()
    if settings.quantization is not None:
        quantize(mllama, settings.quantization, device)
    return mllama.to(device)


@contextlib.contextmanager
def _no_progress_bar() -> Generator[None]:
    """No progress bar for the bundled model, which loads in a moment."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()

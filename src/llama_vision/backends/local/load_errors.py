"""Errors of loading a model, with what to do about them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from llama_vision.core.errors import LocalModelError

_OOM_MESSAGES = ("out of memory", "allocate memory")
"""torch's for CUDA and MPS; the system's and torch's for CPUs."""

_MAX_NAMES = 3


def load_error(model: str, device: torch.device, error: Exception) -> LocalModelError:
    """Translate what loading a model raised into an error that says what to do."""
    if _is_out_of_memory(error):
        return LocalModelError(
            f"{model} does not fit into the memory of {device}: the 11B takes 22 GB, the 90B 180 GB, and half of it with "
            f"LocalSettings(quantization='int8'). {error}"
        )
    return LocalModelError(f"{model} can't be loaded: {_hint(model, error)} The reason: {error}")


def wrong_architecture_error(model: str, model_type: str) -> LocalModelError:
    """The checkpoint is not a Mllama."""
    return LocalModelError(
        f"{model} can't be loaded: it is of the kind {model_type!r}, and this backend runs Llama 3.2 Vision ('mllama') only. "
        "Let a server run it, such as vLLM or Ollama, and pass provider='vllm' or provider='ollama'."
    )


def check_weights(model: str, loading_info: dict[str, Any]) -> None:
    """Refuse missing or mismatched weights, which transformers initializes at random.

    `loading_info` comes from `from_pretrained(output_loading_info=True)`.
    """
    missing = sorted(str(key) for key in loading_info["missing_keys"])
    if missing:
        raise LocalModelError(
            f"{model} can't be loaded: {len(missing)} of its weights are missing ({_first_few(missing)}). "
            "Download it again, all files that end in .safetensors."
        )
    mismatched = sorted(str(name) for name, *_ in loading_info["mismatched_keys"])
    if mismatched:
        raise LocalModelError(
            f"{model} can't be loaded: {len(mismatched)} of its weights have another shape than its config.json says "
            f"({_first_few(mismatched)}). Download both again, from the same place."
        )


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")


def device_error(name: str, error: Exception) -> LocalModelError:
    """The device does not exist or can't be used."""
    available = [*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    return LocalModelError(
        f"torch can't use a device {name!r}. Is it there? LocalSettings(device=...) can be {' or '.join(map(repr, available))}; "
        f"None takes the fastest. The reason: {error}"
    )


def _hint(model: str, error: Exception) -> str:
    causes = list(_exception_chain(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"its weights are given to those who accept Meta's license. Do that on https://huggingface.co/{model}, then log "
            "in on this machine with `hf auth login`, or set HF_TOKEN."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return "the Hugging Face hub shows no such model. Check the id; if it is private, log in with `hf auth login`."
    if any(isinstance(cause, (LocalEntryNotFoundError, OfflineModeIsEnabled)) for cause in causes):
        return (
            "it is not on this machine, and the Hugging Face hub can't be reached. Go online without HF_HUB_OFFLINE, or pass "
            "a folder that holds the weights."
        )
    if Path(model).is_dir():
        return (
            "the folder has to hold config.json, *.safetensors, tokenizer.json and preprocessor_config.json, whole and as "
            "they were published. Download it again."
        )
    return (
        "it is no folder here. Pass one that holds the weights, or an id on the Hugging Face hub, after accepting Meta's "
        "license there and logging in with `hf auth login`."
    )


def _is_out_of_memory(error: Exception) -> bool:
    return any(
        isinstance(cause, (torch.OutOfMemoryError, MemoryError))
        or any(message in str(cause).lower() for message in _OOM_MESSAGES)
        for cause in _exception_chain(error)
    )


def _exception_chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

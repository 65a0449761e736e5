"""Errors of loading a model, with what to do about them."""

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from tokenizers import Tokenizer

from llama_vision.backends.local.checkpoints.gguf import GGUF_NOTE
from llama_vision.backends.local.checkpoints.ollama_store import TAG_PREFIX
from llama_vision.core.errors import LocalModelError

_OOM_MESSAGES = ("out of memory", "allocate memory")
"""torch's for CUDA and MPS; the system's and torch's for CPUs."""

_MAX_NAMES = 3


def load_error(model: str, device: torch.device | str, error: Exception) -> LocalModelError:
    """Translate what loading a model raised into an error that says what to do."""
    if _is_out_of_memory(error):
        return LocalModelError(
            f"{model} does not fit into the memory of {device}: the 11B takes 22 GB, the 90B 180 GB, about half of it with "
            f"LocalSettings(quantization='int8'), and a third with 'int4'. {error}"
        )
    return LocalModelError(f"{model} can't be loaded: {find_hint(model, error)} The reason: {error}")


def check_weights(
    model: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...] | None]
) -> None:
    """Refuse missing weights, and those of another shape than the configuration says.

    Args:
        model: For the error.
        expected: Shape of each weight that the configuration asks for.
        found: Shape of each weight there is; None where it is not known yet.

    Raises:
        LocalModelError: As said.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise LocalModelError(
            f"{model} can't be loaded: {len(missing)} of its weights are missing ({_first_few(missing)}). Its files are whole, but were written "
            f"without them. {_advice_for_other_weights(model)}"
        )
    mismatched = sorted(name for name, shape in expected.items() if found[name] not in (None, shape))
    if mismatched:
        raise LocalModelError(
            f"{model} can't be loaded: {len(mismatched)} of its weights have another shape than its configuration says "
            f"({_first_few(mismatched)}). {_advice_for_other_weights(model)}"
        )


def check_tokenizer(model: str, tokenizer: Tokenizer, num_embeddings: int) -> None:
    """Refuse a tokenizer with ids that the embedding has no row for.

    Raises:
        LocalModelError: As said.
    """
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= num_embeddings:
        raise LocalModelError(
            f"{model} can't be loaded: its tokenizer has token ids up to {largest}, and its embedding {num_embeddings} rows. Take "
            "tokenizer and weights from the same place; a fine-tune with added tokens has to save both."
        )


def _advice_for_other_weights(model: str) -> str:
    return GGUF_NOTE if _is_gguf(model) else "Take config.json and all *.safetensors from one place."


def _is_gguf(model: str) -> bool:
    return model.startswith(TAG_PREFIX) or Path(model).is_file()


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


def find_hint(model: str, error: Exception) -> str:
    """Say what to do about an error of reading a checkpoint."""
    if hint := _hint_of_cause(model, list(_exception_chain(error))):
        return hint
    if Path(model).is_dir():
        return (
            "the folder has to hold config.json, *.safetensors, tokenizer.json and preprocessor_config.json, whole and as "
            "they were published. Where one is missing, `hf download` fetches it; one that is damaged has to be deleted before."
        )
    if _is_gguf(model):
        return f"its GGUF file holds something else than is expected of Llama 3.2 Vision. {GGUF_NOTE}"
    return (
        "it is no folder here. Pass one that holds the weights, or an id on the Hugging Face hub, after accepting Meta's "
        "license there and logging in with `hf auth login`."
    )


def _hint_of_cause(model: str, causes: list[BaseException]) -> str | None:
    """What to do about a known cause; None where it is not known."""
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return (
            "the disk is full. Make room (the 11B takes 22 GB), or set HF_HOME to a folder on another disk; the same call resumes the "
            "download."
        )
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
    return None


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

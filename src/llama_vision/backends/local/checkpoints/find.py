"""From what the user names to an opened checkpoint: a folder, a GGUF file, a tag of Ollama's, or an id on the hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from transformers import AutoConfig

from llama_vision.backends.local.checkpoints.checkpoint import Checkpoint
from llama_vision.backends.local.checkpoints.folder import FolderCheckpoint, wrong_architecture_error
from llama_vision.backends.local.checkpoints.gguf import MAGIC, GgufCheckpoint
from llama_vision.backends.local.checkpoints.ollama_store import TAG_PREFIX, find_blob, find_tag
from llama_vision.backends.local.load_errors import find_hint
from llama_vision.core.errors import LocalModelError

_FILES = ("*.json", "*.safetensors")
_OTHER_FILES = ("original/*",)  # Meta's own layout of the same weights, another 21 GB
_NUM_FILES_OF_A_PAIR = 2


def open_checkpoint(model: str, check_config: Callable[[Any], None]) -> Checkpoint:
    """Open a checkpoint: its headers are read, its weights not yet.

    Args:
        model: A folder, a GGUF file or blob, `ollama:` and a tag, or an id on the Hugging Face hub, which is downloaded unless
            it is in its cache; a download that was broken off is resumed.
        check_config: Called with the configuration before anything large is downloaded or read; it may raise.

    Raises:
        LocalModelError: It is not there, not whole, or of a kind that is not read.
        MissingDependencyError: A library that its kind needs is not installed.
    """
    checkpoint = _open_local(model)
    if checkpoint is None:
        check_config(_hub_config(model))
        hub: Any = huggingface_hub  # not annotated in full
        folder = hub.snapshot_download(model, allow_patterns=list(_FILES), ignore_patterns=list(_OTHER_FILES))
        return FolderCheckpoint(Path(folder))
    check_config(checkpoint.config)
    return checkpoint


def describe_checkpoint(model: str) -> tuple[str, Any]:
    """Read kind and configuration of a checkpoint, from the hub without its weights.

    Raises:
        LocalModelError: As `open_checkpoint`.
        MissingDependencyError: As `open_checkpoint`.
    """
    try:
        checkpoint = _open_local(model)
        if checkpoint is not None:
            return checkpoint.kind, checkpoint.config
        config = _hub_config(model)
    except (OSError, ValueError) as error:
        raise LocalModelError(
            f"{model} can't be read: {find_hint(model, error)} The reason: {error}"
        ) from error
    quantization: dict[str, Any] = getattr(config, "quantization_config", None) or {}
    return str(quantization.get("quant_method", config.dtype)).removeprefix("torch."), config


def _open_local(model: str) -> Checkpoint | None:
    """Open what is on this machine; None for an id on the hub."""
    if model.startswith(TAG_PREFIX):
        found = find_tag(model.removeprefix(TAG_PREFIX))
        return GgufCheckpoint(found.weights, found.parameters)
    path = Path(model).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        is_gguf = files and not (path / "config.json").is_file()
        return GgufCheckpoint(_pair(path, files)) if is_gguf else FolderCheckpoint(path)
    if not path.is_file():
        if path.suffix == ".gguf":
            raise LocalModelError(f"{model} can't be loaded: there is no such file.")
        return None
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise LocalModelError(
                f"{model} can't be loaded: it is no GGUF file. Of other kinds pass the folder, with config.json in it."
            )
    if blob := find_blob(path):
        return GgufCheckpoint(blob.weights, blob.parameters)
    projectors = [one for one in path.parent.glob("*.gguf") if _is_projector(one) and one != path]
    return GgufCheckpoint([path, *projectors[:1]] if len(projectors) == 1 else [path])


def _pair(folder: Path, files: list[Path]) -> list[Path]:
    """Choose the text model and the projector of a folder of GGUF files."""
    projectors = [one for one in files if _is_projector(one)]
    others = [one for one in files if one not in projectors]
    if len(others) != 1 or len(projectors) >= _NUM_FILES_OF_A_PAIR:
        names = ", ".join(one.name for one in files)
        raise LocalModelError(
            f"{folder} can't be loaded: it holds several GGUF files. Pass the path of one: {names}."
        )
    return others + projectors


def _is_projector(path: Path) -> bool:
    """Whether the name is that of a file with a vision encoder, as llama.cpp's and Ollama's tools name them."""
    return any(part in path.name.lower() for part in ("mmproj", "projector"))


def _hub_config(model: str) -> Any:
    auto_config: Any = AutoConfig
    config = auto_config.from_pretrained(model)
    if config.model_type != "mllama":
        raise wrong_architecture_error(model, config.model_type)
    return config

"""Ollama's store of models: from a tag such as `llama3.2-vision:11b` to the files of its weights.

Source: envconfig/config.go, types/model/name.go and manifest/ of https://github.com/ollama/ollama (2026-08-21).
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_vision.core.errors import LocalModelError

TAG_PREFIX = "ollama:"

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_SYSTEM_FOLDER = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama's service for Linux keeps its models: the home of its own user."""
_IMAGE = "application/vnd.ollama.image."
_NUM_NAME_PARTS = 3


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """A model in Ollama's store.

    Attributes:
        weights: One file, or two where the vision part has a projector file of its own (pulled until May 2025).
        parameters: Its default sampling parameters, such as `temperature`.
    """

    weights: tuple[Path, ...]
    parameters: Mapping[str, Any]


def store_folders() -> tuple[Path, ...]:
    """List the folders where Ollama may keep its models: that of OLLAMA_MODELS, else its defaults."""
    if configured := os.environ.get("OLLAMA_MODELS", "").strip().strip("\"'"):
        return (Path(configured),)
    return (Path.home() / ".ollama" / "models", _SYSTEM_FOLDER)


def find_tag(tag: str) -> OllamaModel:
    """Find a tag's files.

    Args:
        tag: As `ollama list` shows it, with or without host, namespace and tag.

    Raises:
        LocalModelError: There is no such tag, or a file of it is missing, cut off or of a kind that holds no GGUF.
    """
    parts = _name_parts(tag)
    folders = store_folders()
    for folder in folders:
        if manifest := _find_ignoring_case(folder / "manifests", parts):
            return _read_manifest(tag, manifest, folder / "blobs")
    raise LocalModelError(
        f"{TAG_PREFIX}{tag} can't be loaded: Ollama's store has no such tag. Looked in {' and '.join(map(str, folders))}"
        f"{_known_tags(folders)}. `ollama pull {tag}` fetches it; where the store is elsewhere, set OLLAMA_MODELS, or pass the "
        "path of the blob."
    )


def find_blob(path: Path) -> OllamaModel | None:
    """Find the model that a blob of a store belongs to, since the blob may need a projector; None outside of a store."""
    if path.parent.name != "blobs":
        return None
    for manifest in sorted((path.parent.parent / "manifests").glob("*/*/*/*")):
        if path.name.replace("-", ":", 1) in manifest.read_text(errors="replace"):
            return _read_manifest("/".join(manifest.parts[-2:]), manifest, path.parent)
    return None


def _name_parts(tag: str) -> list[str]:
    """Split into host, namespace, model and tag: `x/llama3.2-vision` -> registry.ollama.ai, x, llama3.2-vision, latest."""
    name = tag.partition("://")[2] or tag
    if name.rfind(":") > name.rfind("/"):
        name, _, version = name.rpartition(":")
    else:
        version = "latest"
    parts = name.split("/")
    parts = ["registry.ollama.ai", "library"][: max(0, _NUM_NAME_PARTS - len(parts))] + parts + [version]
    if len(parts) != _NUM_NAME_PARTS + 1 or not all(map(_PART.fullmatch, parts)):
        raise LocalModelError(
            f"{TAG_PREFIX}{tag} can't be loaded: that is no name of Ollama's. One is such as 'ollama:llama3.2-vision:11b'."
        )
    return parts


def _find_ignoring_case(folder: Path, parts: Sequence[str]) -> Path | None:
    for part in parts:
        found = folder / part
        if not found.exists() and folder.is_dir():
            found = next((one for one in sorted(folder.iterdir()) if one.name.lower() == part.lower()), found)
        folder = found
    return folder if folder.is_file() else None


def _known_tags(folders: Sequence[Path]) -> str:
    manifests = sorted(path for folder in folders for path in (folder / "manifests").glob("*/*/*/*"))
    names = ", ".join(f"{path.parent.name}:{path.name}" for path in manifests[:10])
    return f", which holds {names}" if names else ""


def _read_manifest(tag: str, manifest: Path, blobs: Path) -> OllamaModel:
    try:
        layers: list[dict[str, Any]] = json.loads(manifest.read_text())["layers"]
        files = [(layer["mediaType"], layer["digest"], layer["size"]) for layer in layers]
    except (ValueError, KeyError, TypeError) as error:
        raise LocalModelError(
            f"{TAG_PREFIX}{tag} can't be loaded: its manifest {manifest} can't be read. `ollama pull {tag}` writes it anew. "
            f"The reason: {error}"
        ) from error
    weights = [
        _blob(tag, blobs, *file)
        for kind in ("model", "projector")
        for file in files
        if file[0] == _IMAGE + kind
    ]
    if any(media_type == f"{_IMAGE}adapter" for media_type, *_ in files):
        raise LocalModelError(
            f"{TAG_PREFIX}{tag} can't be loaded: it has an adapter in Ollama's own format. Pass the tag it was made from, and the "
            "adapter as PEFT's folder in LocalSettings(adapter=...)."
        )
    if not any(media_type == f"{_IMAGE}model" for media_type, *_ in files):
        raise LocalModelError(
            f"{TAG_PREFIX}{tag} can't be loaded: it holds no GGUF file. Take a tag of Llama 3.2 Vision such as "
            "'ollama:llama3.2-vision:11b'."
        )
    parameters: dict[str, Any] = {}
    for file in files:
        if file[0] == f"{_IMAGE}params":
            parameters |= json.loads(_blob(tag, blobs, *file).read_text())
    return OllamaModel(tuple(weights), parameters)


def _blob(tag: str, blobs: Path, _media_type: str, digest: str, size: int) -> Path:
    path = blobs / digest.replace(":", "-", 1)
    found = path.stat().st_size if path.is_file() else 0
    if found != size:
        raise LocalModelError(
            f"{TAG_PREFIX}{tag} can't be loaded: of its file {path} {found:,} of {size:,} bytes are here. "
            f"`ollama pull {tag}` fetches the rest."
        )
    return path

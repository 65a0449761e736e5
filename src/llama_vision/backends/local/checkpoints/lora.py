"""A LoRA adapter in PEFT's layout, added to the weights while they are loaded."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from llama_vision.backends.local.checkpoints.checkpoint import parameter_name
from llama_vision.core.errors import LocalModelError

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LORA = re.compile(r"(.+)\.lora_(A|B|embedding_A|embedding_B)(?:\.weight)?")


class LoraAdapter:
    """A LoRA adapter: W + scale * B @ A, and whole layers in place of the model's own (`modules_to_save`).

    Raises:
        LocalModelError: The folder holds no adapter, or one of a kind that can't be merged here.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._config = self._read_config()
        path = self._folder / _WEIGHTS
        if not path.is_file():
            raise self._error(
                f"it has no {_WEIGHTS}. PEFT's `save_pretrained(folder)` writes it; files of pickles are not read."
            )
        self._file: Any = safe_open(path, framework="pt")
        self._pairs: dict[str, dict[str, str]] = {}
        self._whole: dict[str, str] = {}
        for name in self._file.keys():  # noqa: SIM118 - no mapping
            short = name.removeprefix(_PREFIX)
            if found := _LORA.fullmatch(short):
                self._pairs.setdefault(parameter_name(f"{found[1]}.weight"), {})[found[2]] = name
            else:
                self._whole[
                    parameter_name(short.replace(".modules_to_save", "").replace(".base_layer", ""))
                ] = name
        self._applied: set[str] = set()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the layers that replace the model's own."""
        return {name: tuple(self._file.get_slice(raw).get_shape()) for name, raw in self._whole.items()}

    def applies_to(self, name: str) -> bool:
        """Whether it has a part of a weight."""
        return name in self._whole or name in self._pairs

    def apply(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Merge the adapter's part of a weight into it, in place where it can."""
        if name in self._whole:
            self._applied.add(name)
            weight = self._file.get_tensor(self._whole[name]).to(weight.device, weight.dtype, copy=True)
        pair = self._pairs.get(name)
        if pair is None:
            return weight
        self._applied.add(name)
        a, b = (
            self._file.get_tensor(next(raw for key, raw in pair.items() if key.endswith(half)))
            .to(weight.device)
            .float()
            for half in ("A", "B")
        )
        delta = (b @ a) * self._scale(name, a.shape[0])
        delta = delta.t() if "embedding_A" in pair else delta
        if delta.shape != weight.shape:
            raise self._error(
                f"its part of {name} is for a shape {tuple(delta.shape)}, and the model's is {tuple(weight.shape)}. Pass the model it "
                f"was trained on: {self._config.get('base_model_name_or_path')!r}."
            )
        return weight.copy_(weight.float() + delta)

    def check_applied(self) -> None:
        """Refuse an adapter with parts that belong to no weight of the model."""
        if left := sorted((self._pairs.keys() | self._whole.keys()) - self._applied):
            raise self._error(
                f"{len(left)} of its parts belong to no weight of the model ({', '.join(left[:3])}). Pass the model it was trained on: "
                f"{self._config.get('base_model_name_or_path')!r}."
            )

    def _read_config(self) -> dict[str, Any]:
        path = self._folder / _CONFIG
        if not path.is_file():
            raise self._error(
                f"the folder has no {_CONFIG}. An adapter is a folder that PEFT's `save_pretrained` wrote."
            )
        config: dict[str, Any] = json.loads(path.read_text())
        unsupported = [name for name in ("use_dora", "fan_in_fan_out", "lora_bias") if config.get(name)]
        if config.get("peft_type") != "LORA" or unsupported:
            kind = ", ".join(unsupported) or config.get("peft_type")
            raise self._error(
                f"it is of the kind {kind}, and plain LoRA is merged here. Merge it with PEFT (`merge_and_unload()`, then "
                "`save_pretrained(folder)`), and pass that folder as the model."
            )
        return config

    def _scale(self, name: str, rank: int) -> float:
        layer = name.removesuffix(".weight")
        alphas: dict[str, float] = self._config.get("alpha_pattern") or {}
        alpha = next(
            (value for pattern, value in alphas.items() if _matches(pattern, layer)),
            self._config["lora_alpha"],
        )
        return float(alpha) / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _error(self, hint: str) -> LocalModelError:
        return LocalModelError(f"The adapter {self._folder} can't be loaded: {hint}")


def _matches(pattern: str, layer: str) -> bool:
    """Whether a key of PEFT's `alpha_pattern` is about a layer: the end of its name, or a regular expression for it."""
    return re.fullmatch(rf"(.*\.)?({pattern})", layer) is not None

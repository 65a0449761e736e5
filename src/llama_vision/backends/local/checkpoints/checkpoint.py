"""What the model loader needs of a checkpoint, whatever its kind."""

import re
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer

from llama_vision.backends.local.int4_linear import Int4Weight

_PREFIXES = (
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.(model\.)?"), "model.language_model."),
    (re.compile(r"^(vision_model|multi_modal_projector)\."), r"model.\1."),
)


class Checkpoint(Protocol):
    """A checkpoint whose headers have been read, and whose weights are read one by one."""

    @property
    def kind(self) -> str:
        """How the weights are stored, such as `bfloat16` or `GGUF Q4_K`."""
        ...

    @property
    def config(self) -> Any:
        """The MllamaConfig."""
        ...

    @property
    def generation_config(self) -> Any:
        """The GenerationConfig."""
        ...

    @property
    def image_processor_config(self) -> Mapping[str, Any]:
        """What `parse_image_processor_config` reads."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...] | None]:
        """Shape of each weight, by its name in MllamaForConditionalGeneration; None where only reading tells."""
        ...

    def tokenizer(self) -> Tokenizer:
        """Read the tokenizer."""
        ...

    def read(self, name: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Read one weight, dequantized, in `dtype` on `device`. The tensor shares no memory with the file."""
        ...

    def read_int4(self, name: str, device: torch.device) -> Int4Weight | None:
        """Read the weight of a layer as it is stored, on `device`; None where that is not in four bits with groups that fit."""
        ...


def parameter_name(name: str) -> str:
    """Rename a checkpoint's weight to MllamaForConditionalGeneration's name; Meta's and most others' have the older one."""
    for pattern, prefix in _PREFIXES:
        renamed, count = pattern.subn(prefix, name)
        if count:
            return renamed
    return name

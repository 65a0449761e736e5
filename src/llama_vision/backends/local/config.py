"""How a model runs on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from llama_vision.core.errors import ConfigurationError

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Quantization: TypeAlias = Literal["int8", "fp8"]

TINY_MODEL = "tiny"
"""The model that comes with this package: it is never looked for elsewhere, loads in no time, and needs no GPU."""

_MINIMUMS = {
    "max_batch_size": 1,
    "max_model_len": 2,
    "image_cache_bytes": 0,
    "prefix_cache_bytes": 0,
    "max_waiting": 1,
}


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """How a model runs on this machine.

    Everyone in a process with the same `device`, `dtype` and `quantization` shares one loaded model; other values of these
    load it once more.

    Attributes:
        max_batch_size: How many answers are worked on at the same time. Further requests wait.
        max_model_len: The most tokens of a prompt and its reply together; None takes the model's own limit. Memory is taken
            as answers grow: the 11B needs 131 kB for each token of each answer in the making.
        image_cache_bytes: Up to how many bytes of what the model saw in images are kept for the next question about the
            same ones: the 11B needs 53 MB for each tile of 560 x 560 pixels. 0 keeps nothing.
        prefix_cache_bytes: Up to how many bytes of conversations that are over are kept, so that a next turn, or another
            question after the same beginning, is read only from where it differs: the 11B needs 131 kB for each token.
            0 keeps nothing.
        max_waiting: How many requests may wait. One more is refused.
        device: Such as `cpu`, `mps`, `cuda` or `cuda:1`. None takes the fastest there is.
        dtype: In what precision it computes. `auto` keeps that of the weights, but for small models on a processor,
            which are faster in `float32`.
        quantization: `int8` keeps the weights of all linear layers but the last in 8 bits, with a scale for each row: half
            the memory, on any device. It saves no time on a GPU; a processor that computes in `bfloat16` writes faster with
            it. `fp8` computes in 8-bit floats, on NVIDIA's Hopper GPUs (H100, H200), and layers that look at images
            stay in `bfloat16`. Scores differ a little, the tiny model's by 0.6% of their size with `int8`, which is what
            `bfloat16` does to them too, and by 3% with `fp8`. None changes nothing.

    """

    max_batch_size: int = 16
    max_model_len: int | None = None
    image_cache_bytes: int = 2**30
    prefix_cache_bytes: int = 2**28
    max_waiting: int = 4096
    device: str | None = None
    dtype: Precision = "auto"
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises:
            ConfigurationError: A value is out of range.

        """
        for name, least in _MINIMUMS.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigurationError(f"{name} has to be {least} or more, and is {value!r}.")
        if self.dtype not in Precision.__args__:
            raise ConfigurationError(f"dtype has to be one of {Precision.__args__}, and is {self.dtype!r}.")
        if self.quantization not in (None, *Quantization.__args__):
            raise ConfigurationError(
                f"quantization has to be None or one of {Quantization.__args__}, and is {self.quantization!r}."
            )
        if self.quantization == "fp8" and self.dtype not in ("auto", "bfloat16"):
            raise ConfigurationError(
                f"quantization='fp8' goes with dtype='bfloat16', and not with {self.dtype!r}."
            )


def parse_local_settings(given: Mapping[str, Any]) -> LocalSettings:
    """Make settings of names and values.

    Args:
        given: The fields of `LocalSettings`, by name.

    Returns:
        The settings.

    Raises:
        ConfigurationError: A name is not known, or a value is out of range.

    """
    known = [field.name for field in fields(LocalSettings)]
    if unknown := sorted(set(given) - set(known)):
        raise ConfigurationError(
            f"There is no local setting {', '.join(unknown)}. There are: {', '.join(known)}."
        )
    return LocalSettings(**given)

"""Loading a model: the 3.6 million parameters that come with this package, or the 11 billion, by the same code."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_vision.backends.local.constrain import Constrainer
from llama_vision.backends.local.settings import LocalSettings
from llama_vision.core.errors import LocalModelError, MissingDependencyError

try:
    import torch
    from transformers import AutoProcessor, MllamaForConditionalGeneration
    from transformers.utils import logging as transformers_logging
except ImportError as missing:
    raise MissingDependencyError(
        "The local model needs torch and transformers: pip install 'llama-vision[local]'"
    ) from missing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TINY = Path(__file__).parent / "tiny"
"""The folder of the model that comes with this package."""

_FEW_PARAMETERS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready.

    Attributes:
        network: The Mllama, in evaluation mode on its device.
        image_processor: Hugging Face's preprocessing.
        tokenizer: Takes every text as words, also `<|eot_id|>`: control tokens are put in by their ids.
        context_window: In tokens, prompt and reply together.
        end_ids: The tokens that end a reply.
        constrainer: Keeps replies to a grammar.

    """

    network: Any
    image_processor: Any
    tokenizer: "Tokenizer"
    context_window: int
    end_ids: frozenset[int]
    constrainer: Constrainer

    @property
    def device(self) -> "torch.device":
        """Where it runs."""
        return self.network.device


def pick_device() -> "torch.device":
    """Choose the fastest device there is: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(model: str, settings: LocalSettings | None = None) -> LoadedModel:
    """Load weights, tokenizer and preprocessing.

    Args:
        model: `tiny`, a folder, or an id on the Hugging Face hub, which has to be downloaded or cached there.
        settings: Their `device` and `dtype` count.

    Returns:
        The model.

    Raises:
        LocalModelError: They are not there, or don't fit; the text says what to do.

    """
    path = str(TINY) if model == "tiny" else model
    settings = settings or LocalSettings()
    try:
        with _no_progress_bar() if model == "tiny" else contextlib.nullcontext():
            processor = _untyped(AutoProcessor).from_pretrained(path)
            network = _untyped(MllamaForConditionalGeneration).from_pretrained(path, dtype=settings.dtype)
        network = _placed(network.eval(), _device(settings), settings)
    except (
        OSError,
        ValueError,
        RuntimeError,
        AssertionError,
    ) as error:  # the last is torch's for "no CUDA here"
        raise LocalModelError(_advice(model, settings, error)) from error
    tokenizer: Tokenizer = processor.tokenizer.backend_tokenizer
    tokenizer.encode_special_tokens = True
    ends: Any = network.generation_config.eos_token_id
    end_ids = frozenset[int]([ends] if isinstance(ends, int) else ends)
    return LoadedModel(
        network=network,
        image_processor=processor.image_processor,
        tokenizer=tokenizer,
        context_window=network.config.text_config.max_position_embeddings,
        end_ids=end_ids,
        constrainer=Constrainer(tokenizer, end_ids),
    )


def _untyped(transformers_class: Any) -> Any:
    """Take a class of transformers for what it is to a type checker."""
    return transformers_class


def _device(settings: LocalSettings) -> "torch.device":
    return pick_device() if settings.device is None else torch.device(settings.device)


def _placed(network: Any, device: "torch.device", settings: LocalSettings) -> Any:
    """Move to the device. A processor computes a small model best in 32 bits; a large one would not fit."""
    if device.type == "cpu" and settings.dtype == "auto" and network.num_parameters() < _FEW_PARAMETERS:
        return network.float()
    return network.to(device)


def _advice(model: str, settings: LocalSettings, error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        where = settings.device or pick_device()
        return (
            f"{model} does not fit into the memory of {where}: the 11B takes 22 GB, the 90B 180 GB. {error}"
        )
    if settings.device is not None and not isinstance(error, OSError):
        return (
            f"{model} can't be loaded onto the device {settings.device!r}. Is it there, and does torch know of it? "
            f"The reason: {error}"
        )
    return (
        f"{model} can't be loaded. Pass a folder that holds its weights, or its id on the Hugging Face hub after "
        f"accepting Meta's licence there and logging in with `hf auth login`. The reason: {error}"
    )


@contextlib.contextmanager
def _no_progress_bar() -> Generator[None]:
    """Show no bar for what takes a moment."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()

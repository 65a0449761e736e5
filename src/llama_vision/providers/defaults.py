"""The default provider and model."""

import os

from llama_vision.providers import find_provider
from llama_vision.providers.provider import Provider


def default_provider(base_url: str | None = None) -> str:
    """Return `$LLAMA_VISION_PROVIDER`, else the model on this machine, which needs no key.

    With an address it is any OpenAI-compatible endpoint, where the variable names none that has one.
    """
    name = os.environ.get("LLAMA_VISION_PROVIDER") or "local"
    return "openai-compatible" if base_url and find_provider(name).dialect is None else name


def default_model(provider: str | Provider) -> str:
    """Return `$LLAMA_VISION_MODEL`, else the first model of the provider's record: `tiny` for `local`, the 11B elsewhere."""
    return os.environ.get("LLAMA_VISION_MODEL") or find_provider(provider).models[0].name

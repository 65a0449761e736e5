"""The default provider and model."""

import os

from llama_vision.providers import find_provider
from llama_vision.providers.provider import Provider


def default_provider() -> str:
    """Return `$LLAMA_VISION_PROVIDER`, else the model on this machine, which needs no key."""
    return os.environ.get("LLAMA_VISION_PROVIDER") or "local"


def default_model(provider: str | Provider) -> str:
    """Return `$LLAMA_VISION_MODEL`, else the first model of the provider's record: `tiny` for `local`, the 11B elsewhere."""
    return os.environ.get("LLAMA_VISION_MODEL") or find_provider(provider).models[0].name

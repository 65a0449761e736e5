"""The captioning task: prompt, model and settings, and the key of a caption."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply

DEFAULT_PROMPT = "Describe the image."
"""The prompt for each image."""


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """A prompt that can be put to a model about any image.

    Attributes:
        prompt: The prompt.
        provider: The provider's name.
        model: The provider's id of the model.
        settings: Whatever else the reply depends on, by `LlamaVision`'s field names.
        options: Further options of each call.
        ask: Makes the call.
        lossless: Whether pages of documents are encoded without loss.
    """

    prompt: str
    provider: str
    model: str
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    ask: Callable[[Image], Awaitable[Reply]]
    lossless: bool = True

    def cache_key(self, digest: str) -> str:
        """Hash all that a caption depends on; the file's name is not part of it.

        Args:
            digest: SHA-256 of the image's bytes, or of a page's pixels.

        Returns:
            SHA-256, as hexadecimal digits.
        """
        key = [digest, self.prompt, self.provider, self.model, self.settings, self.options]
        return hashlib.sha256(json.dumps(key, sort_keys=True, default=repr).encode()).hexdigest()

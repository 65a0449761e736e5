"""What is asked about each image, and of whom."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply

DEFAULT_PROMPT = "Describe the image."
"""What is asked about each image."""


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """A question that can be put about any image.

    Attributes:
        prompt: Its words.
        provider: The name of who is asked.
        model: The provider's id of the model.
        settings: Whatever else changes the answers, by the names that `LlamaVision` has for it.
        options: What else goes with each call.
        ask: Puts it.

    """

    prompt: str
    provider: str
    model: str
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    ask: Callable[[Image], Awaitable[Reply]]

    def cache_key(self, digest: str) -> str:
        """Name an answer by all it depends on, and not by the file's name.

        Args:
            digest: SHA-256 of the image's bytes.

        Returns:
            SHA-256, as hexadecimal digits.

        """
        asked = [digest, self.prompt, self.provider, self.model, self.settings, self.options]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=repr).encode()).hexdigest()

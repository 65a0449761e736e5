"""What users may say about how their images are sent."""

from dataclasses import dataclass
from typing import Literal

from llama_vision.core.errors import ConfigurationError

_QUALITIES = range(1, 96)  # above 95 Pillow switches parts of JPEG off


@dataclass(frozen=True, slots=True)
class EncodingOptions:
    """How images are sent.

    Attributes:
        max_pixels: The most pixels, besides what the model can use; None for no other limit.
        format: What an image is encoded as where it can't be sent as it is: `auto` for JPEG for photographs and PNG
            for drawings and text. With `jpeg` or `png`, a file in another format is never sent as it is.
        quality: Of JPEG, 1 to 95.

    Raises:
        ConfigurationError: A value is out of range.

    """

    max_pixels: int | None = None
    format: Literal["auto", "jpeg", "png"] = "auto"
    quality: int = 85

    def __post_init__(self) -> None:
        if self.max_pixels is not None and self.max_pixels < 1:
            raise ConfigurationError(f"max_pixels is {self.max_pixels}; give 1 or more, or None.")
        if self.format not in ("auto", "jpeg", "png"):
            raise ConfigurationError(f"The image format is {self.format!r}; give 'auto', 'jpeg' or 'png'.")
        if self.quality not in _QUALITIES:
            raise ConfigurationError(f"The image quality is {self.quality}; give 1 to 95.")

"""What users can set about images: their encoding, how many are sent, and what is downloaded."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from llama_vision.core.errors import ConfigurationError
from llama_vision.images.fetch_policy import FetchPolicy

ImageFormat: TypeAlias = Literal["auto", "jpeg", "png"]
OverflowPolicy: TypeAlias = Literal["error", "first", "grid"]

DOCUMENT_MAX_PAGES = 20
"""The maximum number of pages of one document, unless told otherwise."""

_QUALITIES = range(1, 96)  # above 95 Pillow disables parts of JPEG's compression


@dataclass(frozen=True, slots=True)
class EncodingOptions:
    """How images are encoded.

    Attributes:
        max_pixels: The maximum number of pixels, besides what the model can use; None for no other limit.
        format: The encoding of an image that can't be sent as it is: `auto` for JPEG for photographs and PNG for
            graphics and text. With `jpeg` or `png`, a file in another format is never sent as it is. A backend that
            decodes files itself is given PNG always.
        quality: JPEG quality, 1 to 95.

    Raises:
        ConfigurationError: A value is out of range.
    """

    max_pixels: int | None = None
    format: ImageFormat = "auto"
    quality: int = 85

    def __post_init__(self) -> None:
        if self.max_pixels is not None and self.max_pixels < 1:
            raise ConfigurationError(f"max_pixels is {self.max_pixels}; give 1 or more, or None.")
        if self.format not in ("auto", "jpeg", "png"):
            raise ConfigurationError(f"The image format is {self.format!r}; give 'auto', 'jpeg' or 'png'.")
        if self.quality not in _QUALITIES:
            raise ConfigurationError(f"The image quality is {self.quality}; give 1 to 95.")


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How the images of a request are prepared.

    Attributes:
        encoding: How they are encoded, and how large they may be.
        on_too_many: What to do with more images than a provider accepts: refuse them (`error`), send the `first` ones,
            or put all of them on one numbered contact sheet (`grid`).
        fetch: What may be downloaded, for providers that don't fetch URLs themselves; documents always are.
        document_max_pages: The maximum number of pages of one document.
        document_text: Whether the text layer of a document's pages follows their images.

    Raises:
        ConfigurationError: `document_max_pages` is less than 1.
    """

    encoding: EncodingOptions = field(default_factory=EncodingOptions)
    on_too_many: OverflowPolicy = "error"
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    document_max_pages: int = DOCUMENT_MAX_PAGES
    document_text: bool = True

    def __post_init__(self) -> None:
        if self.document_max_pages < 1:
            raise ConfigurationError(f"document_max_pages is {self.document_max_pages}; give 1 or more.")


@lru_cache(maxsize=64)
def build_image_settings(
    *,
    max_pixels: int | None,
    image_format: ImageFormat,
    quality: int,
    on_too_many: OverflowPolicy,
    allowed_hosts: tuple[str, ...],
    private_networks: bool,
    document_max_pages: int,
    document_text: bool,
) -> ImageSettings:
    """Build the settings from both adapters' constructor arguments; cached.

    Raises:
        ConfigurationError: A value is out of range.
    """
    return ImageSettings(
        EncodingOptions(max_pixels, image_format, quality),
        on_too_many,
        FetchPolicy(allowed_hosts=frozenset(allowed_hosts), private_networks=private_networks),
        document_max_pages,
        document_text,
    )

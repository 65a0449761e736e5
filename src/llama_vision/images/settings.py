"""What a user may wish about images."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from llama_vision.images.fetch import FetchPolicy
from llama_vision.images.prepare import EncodingOptions

OverflowPolicy: TypeAlias = Literal["error", "first", "grid"]


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How images are made ready.

    Attributes:
        options: How they are encoded, and how large they may be.
        on_too_many: What to do with more images than a provider takes: refuse them (`error`), send the `first` ones, or put
            all of them on one numbered sheet (`grid`).
        fetch: What may be downloaded, for providers that don't fetch addresses themselves.

    """

    options: EncodingOptions = field(default_factory=EncodingOptions)
    on_too_many: OverflowPolicy = "error"
    fetch: FetchPolicy = field(default_factory=FetchPolicy)


@lru_cache(maxsize=64)
def build_image_settings(
    *,
    max_pixels: int | None,
    image_format: Literal["auto", "jpeg", "png"],
    quality: int,
    on_too_many: OverflowPolicy,
    allowed_hosts: tuple[str, ...],
    private_networks: bool,
) -> ImageSettings:
    """Put the options that both adapters have together; the same again costs nothing.

    Raises:
        ConfigurationError: A value is out of range.

    """
    return ImageSettings(
        EncodingOptions(max_pixels, image_format, quality),
        on_too_many,
        FetchPolicy(allowed_hosts=frozenset(allowed_hosts), private_networks=private_networks),
    )

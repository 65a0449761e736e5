"""What a user may wish about pictures."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from llama_vision.images.fetch import FetchOptions
from llama_vision.images.prepare import ImageOptions

ImagePolicy: TypeAlias = Literal["error", "first", "grid"]


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How pictures are made ready.

    Attributes:
        options: How they are encoded, and how large they may be.
        policy: What to do with more pictures than a provider takes: refuse them (`error`), send the `first` ones, or put
            all of them on one numbered sheet (`grid`).
        fetch: What may be downloaded, for providers that don't fetch addresses themselves.

    """

    options: ImageOptions = field(default_factory=ImageOptions)
    policy: ImagePolicy = "error"
    fetch: FetchOptions = field(default_factory=FetchOptions)


@lru_cache(maxsize=64)
def image_settings(
    *,
    max_pixels: int | None,
    image_format: Literal["auto", "jpeg", "png"],
    quality: int,
    policy: ImagePolicy,
    allowed_hosts: tuple[str, ...],
    private_networks: bool,
) -> ImageSettings:
    """Put the options that both adapters have together; the same again costs nothing.

    Raises:
        ConfigurationError: A value is out of range.

    """
    return ImageSettings(
        ImageOptions(max_pixels, image_format, quality),
        policy,
        FetchOptions(allowed_hosts=frozenset(allowed_hosts), private_networks=private_networks),
    )

"""What a user may wish about pictures."""

from dataclasses import dataclass, field
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

"""Images of a prompt, from their bytes to tiles."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.core.messages import Image

if TYPE_CHECKING:
    from llama_vision.backends.local.image_processor import ImageProcessorConfig, TiledImage


@dataclass(slots=True)
class ImageInput:
    """An image of a prompt.

    Attributes:
        key: The hash of its bytes.
        image: The image, and its number in the conversation, from 1.
        num_vision_tokens: One for each patch of each tile that is not padding.
        tiles: Its pixels until it is encoded; None where it was in the encoder cache.
    """

    key: bytes
    image: Image
    number: int
    num_vision_tokens: int
    tiles: "TiledImage | None" = None


class ImagePreprocessor:
    """Decodes and tiles images that are not in the encoder cache. It may run in any thread, and takes milliseconds."""

    def __init__(self, model: LoadedModel, num_cached_vision_tokens: Callable[[bytes], int | None]) -> None:
        self._model = model
        self._num_cached_vision_tokens = num_cached_vision_tokens
        self._num_patches: int = model.model.model.vision_model.num_patches

    @functools.cached_property
    def config(self) -> "ImageProcessorConfig":
        """The checkpoint's.

        Raises:
            LocalModelError: It is not supported.
        """
        # Here and not above: a request without images needs none of it.
        from llama_vision.backends.local.image_processor import parse_image_processor_config  # noqa: PLC0415 - as said

        return parse_image_processor_config(self._model.image_processor_config)

    def preprocess(self, image: Image, number: int) -> ImageInput:
        """Preprocess an image; `number` is its number in the conversation, from 1.

        Raises:
            ImageError: It can't be decoded.
            LocalModelError: The checkpoint's image processor is not supported.
        """
        key = hashlib.blake2b(image.data or b"", digest_size=16).digest()
        num_vision_tokens = self._num_cached_vision_tokens(key)
        if num_vision_tokens is not None:
            return ImageInput(key, image, number, num_vision_tokens)
        tiles = self.tile(image, number)
        return ImageInput(key, image, number, tiles.count * self._num_patches, tiles)

    def tile(self, image: Image, number: int) -> "TiledImage":
        """Decode and tile an image; see `preprocess`."""
        from llama_vision.backends.local.image_processor import preprocess_image  # noqa: PLC0415 - see `config`

        return preprocess_image(image, number, self.config)

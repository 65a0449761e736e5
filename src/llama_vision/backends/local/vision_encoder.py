"""What the model sees in images: worked out once for each image, and kept for the next question about it."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.core.messages import Image

if TYPE_CHECKING:
    from llama_vision.backends.local.image_processor import ImageProcessorConfig, TiledImage

_MAX_ENCODER_BATCH = 8
"""Seeing one takes 19 TFLOP and a few GB for a moment with the 11B."""


@dataclass(frozen=True, slots=True)
class CrossAttentionKV:
    """One image, as the layers in which words look at images need it.

    Attributes:
        keys: By the layer's number in the network, (heads, columns, size).
        values: The same.
        num_vision_tokens: How many there are: one for each patch of each tile that is no padding.

    """

    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]
    num_vision_tokens: int

    @property
    def num_bytes(self) -> int:
        """Bytes of memory."""
        return sum(one.nbytes for tensors in (self.keys, self.values) for one in tensors.values())


@dataclass(slots=True)
class ImageInput:
    """An image of a prompt.

    Attributes:
        key: Equal for equal images.
        tiles: The image laid out, until it is seen.
        kv: What the network saw.

    """

    key: bytes
    tiles: "TiledImage | None" = None
    kv: CrossAttentionKV | None = None


class VisionEncoder:
    """The half of the network that sees, with a memory of what it has seen of late.

    Attributes:
        cached_bytes: How much that takes.
        num_encoded: How many images it has looked at.

    """

    def __init__(self, loaded: LoadedModel, cache_bytes: int) -> None:
        self._loaded = loaded
        self._limit = cache_bytes
        self._cache: OrderedDict[bytes, CrossAttentionKV] = OrderedDict()
        self._lock = threading.Lock()
        self._known_rules: ImageProcessorConfig | None = None
        self.cached_bytes = 0
        self.num_encoded = 0

    def preprocess(self, image: Image, number: int) -> ImageInput:
        """Make an image ready to be seen. It may run in any thread, and takes milliseconds of it.

        Args:
            image: With its bytes.
            number: Which of the conversation's images it is, from 1.

        Returns:
            The image, already seen where its like was lately.

        Raises:
            ImageError: It can't be decoded.
            LocalModelError: The checkpoint wants its images in a way that is not known here.

        """
        # Here and not above: who shows no images needs none of it.
        from llama_vision.backends.local.image_processor import preprocess_image  # noqa: PLC0415 - as said

        key = hashlib.blake2b(image.data or b"", digest_size=16).digest()
        with self._lock:
            if (seen := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                return ImageInput(key, kv=seen)
        return ImageInput(key, tiles=preprocess_image(image, number, self._processor_config()))

    def encode(self, images: Sequence[ImageInput]) -> None:
        """Look at those images that were not seen yet; equal ones are looked at once. For the engine's thread."""
        fresh: dict[bytes, ImageInput] = {}
        for image in images:
            image.kv = image.kv or self._cache.get(image.key)
            if image.kv is None:
                fresh.setdefault(image.key, image)
        new = list(fresh.values())
        for start in range(0, len(new), _MAX_ENCODER_BATCH):
            self._encode_batch(new[start : start + _MAX_ENCODER_BATCH])
        for image in images:
            image.kv = image.kv or fresh[image.key].kv
            image.tiles = None

    def _encode_batch(self, images: Sequence[ImageInput]) -> None:
        from llama_vision.backends.local.image_processor import to_pixel_values  # noqa: PLC0415 - see `preprocess`

        network = self._loaded.model
        tiles = [image.tiles for image in images if image.tiles is not None]
        given = to_pixel_values(tiles, self._processor_config(), self._loaded.device, network.dtype)
        found = network.model.vision_model(**given).last_hidden_state
        states = network.model.multi_modal_projector(found)[:, 0]
        for image, tiled, hidden_states in zip(images, tiles, states, strict=True):
            # The rest are empty tiles, which no word ever sees.
            image.kv = self._project_kv(hidden_states[: tiled.count].flatten(0, 1))
            self._cache_put(image.key, image.kv)
        self.num_encoded += len(images)

    def _processor_config(self) -> "ImageProcessorConfig":
        from llama_vision.backends.local.image_processor import parse_image_processor_config  # noqa: PLC0415 - see `preprocess`

        if self._known_rules is None:
            self._known_rules = parse_image_processor_config(self._loaded.image_processor_config)
        return self._known_rules

    def _project_kv(self, states: torch.Tensor) -> CrossAttentionKV:
        """Turn (columns, width) into keys and values."""
        text = self._loaded.model.model.language_model
        keys: dict[int, torch.Tensor] = {}
        values: dict[int, torch.Tensor] = {}
        for number in self._loaded.model.config.text_config.cross_attention_layers:
            attention = text.layers[number].cross_attn
            shape = len(states), attention.num_key_value_heads, attention.head_dim
            keys[number] = attention.k_norm(attention.k_proj(states).view(shape)).transpose(0, 1).contiguous()
            values[number] = attention.v_proj(states).view(shape).transpose(0, 1).contiguous()
        return CrossAttentionKV(keys, values, len(states))

    def _cache_put(self, key: bytes, seen: CrossAttentionKV) -> None:
        if seen.num_bytes > self._limit:
            return
        with self._lock:
            self._cache[key] = seen
            self.cached_bytes += seen.num_bytes
            while self.cached_bytes > self._limit:
                self.cached_bytes -= self._cache.popitem(last=False)[1].num_bytes

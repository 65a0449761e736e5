"""Vision encoder, with an LRU cache of each image's cross-attention keys and values."""

import functools
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
"""An image takes 19 TFLOP and a few GB of activations with the 11B."""


@dataclass(frozen=True, slots=True)
class CrossAttentionKV:
    """An encoded image: the keys and values of its vision tokens in the cross-attention layers.

    Attributes:
        keys: By layer index, (num_kv_heads, num_vision_tokens, head_dim).
        values: The same.
        num_vision_tokens: One for each patch of each tile that is not padding.
    """

    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]
    num_vision_tokens: int

    @property
    def num_bytes(self) -> int:
        """Memory of keys and values."""
        return sum(tensor.nbytes for tensors in (self.keys, self.values) for tensor in tensors.values())


@dataclass(slots=True)
class ImageInput:
    """An image of a prompt: the hash of its bytes, its pixels until it is encoded, then its keys and values."""

    key: bytes
    tiles: "TiledImage | None" = None
    kv: CrossAttentionKV | None = None


class VisionEncoder:
    """Vision model, projector, and the key and value projections of the cross-attention layers."""

    def __init__(self, model: LoadedModel, max_cache_bytes: int) -> None:
        self._model = model
        self._max_cache_bytes = max_cache_bytes
        self._cache: OrderedDict[bytes, CrossAttentionKV] = OrderedDict()
        self._lock = threading.Lock()
        self.cached_bytes = 0  # memory of the encoder cache

    def preprocess(self, image: Image, number: int) -> ImageInput:
        """Decode and tile an image that is not in the encoder cache. It may run in any thread, and takes milliseconds.

        Raises:
            ImageError: It can't be decoded; the text has its number in the conversation, from 1.
            LocalModelError: The checkpoint's image processor is not supported.
        """
        # Here and not above: a request without images needs none of it.
        from llama_vision.backends.local.image_processor import preprocess_image  # noqa: PLC0415 - as said

        key = hashlib.blake2b(image.data or b"", digest_size=16).digest()
        with self._lock:
            if (kv := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                return ImageInput(key, kv=kv)
        return ImageInput(key, tiles=preprocess_image(image, number, self._processor_config))

    def encode(self, images: Sequence[ImageInput]) -> None:
        """Encode the images that are not encoded yet, equal ones once. For the engine thread."""
        missing: dict[bytes, ImageInput] = {}
        for image in images:
            image.kv = image.kv or self._cache.get(image.key)
            if image.kv is None:
                missing.setdefault(image.key, image)
        batch = list(missing.values())
        for start in range(0, len(batch), _MAX_ENCODER_BATCH):
            self._encode_batch(batch[start : start + _MAX_ENCODER_BATCH])
        for image in images:
            image.kv = image.kv or missing[image.key].kv
            image.tiles = None

    def _encode_batch(self, images: Sequence[ImageInput]) -> None:
        from llama_vision.backends.local.image_processor import to_pixel_values  # noqa: PLC0415 - see `preprocess`

        model = self._model.model
        tiles = [image.tiles for image in images if image.tiles is not None]
        pixel_values = to_pixel_values(tiles, self._processor_config, self._model.device, model.dtype)
        hidden = model.model.vision_model(**pixel_values).last_hidden_state
        vision_tokens = model.model.multi_modal_projector(hidden)[:, 0]
        for image, tiled, image_tokens in zip(images, tiles, vision_tokens, strict=True):
            # What follows are the tokens of padding tiles, which nothing attends to.
            image.kv = self._project_kv(image_tokens[: tiled.count].flatten(0, 1))
            self._cache_put(image.key, image.kv)

    @functools.cached_property
    def _processor_config(self) -> "ImageProcessorConfig":
        from llama_vision.backends.local.image_processor import parse_image_processor_config  # noqa: PLC0415 - see `preprocess`

        return parse_image_processor_config(self._model.image_processor_config)

    def _project_kv(self, vision_tokens: torch.Tensor) -> CrossAttentionKV:
        """Project (num_vision_tokens, hidden_size) to keys and values of every cross-attention layer."""
        text_model = self._model.model.model.language_model
        keys: dict[int, torch.Tensor] = {}
        values: dict[int, torch.Tensor] = {}
        for layer in self._model.model.config.text_config.cross_attention_layers:
            attention = text_model.layers[layer].cross_attn
            shape = len(vision_tokens), attention.num_key_value_heads, attention.head_dim
            key = attention.k_norm(attention.k_proj(vision_tokens).view(shape))
            keys[layer] = key.transpose(0, 1).contiguous()
            values[layer] = attention.v_proj(vision_tokens).view(shape).transpose(0, 1).contiguous()
        return CrossAttentionKV(keys, values, len(vision_tokens))

    def _cache_put(self, key: bytes, kv: CrossAttentionKV) -> None:
        if kv.num_bytes > self._max_cache_bytes:
            return
        with self._lock:
            self._cache[key] = kv
            self.cached_bytes += kv.num_bytes
            while self.cached_bytes > self._max_cache_bytes:
                self.cached_bytes -= self._cache.popitem(last=False)[1].num_bytes

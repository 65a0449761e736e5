"""Vision encoder: from tiled images to keys and values of the cross-attention layers in the KV cache."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from llama_vision.backends.local.device_map import VISION_MODEL
from llama_vision.backends.local.encoder_cache import EncodedImage
from llama_vision.backends.local.image_input import ImageInput, ImagePreprocessor
from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.memory_estimate import encoder_batch_size
from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.backends.local.vision_model import encode_tiles

if TYPE_CHECKING:
    from llama_vision.backends.local.image_processor import TiledImage


class VisionEncoder:
    """Vision model, projector, and the key and value projections of the cross-attention layers."""

    def __init__(
        self, model: LoadedModel, kv_caches: Sequence[KVCache], preprocessor: ImagePreprocessor
    ) -> None:
        """Take the KV cache of each pipeline stage."""
        self._model = model
        self._kv_caches = kv_caches
        self._preprocessor = preprocessor
        self._batch_size = encoder_batch_size(model.model.config.vision_config, model.model.dtype)

    def encode(self, images: Sequence[tuple[ImageInput, EncodedImage]]) -> None:
        """Encode images into the blocks they were given."""
        by_num_tiles: dict[int, list[tuple[ImageInput, EncodedImage]]] = {}
        for image, encoded in images:
            by_num_tiles.setdefault(encoded.num_vision_tokens, []).append((image, encoded))
        for alike in by_num_tiles.values():
            for start in range(0, len(alike), self._batch_size):
                self._encode_batch(alike[start : start + self._batch_size])

    def _encode_batch(self, images: Sequence[tuple[ImageInput, EncodedImage]]) -> None:
        """Encode images of as many tiles each."""
        from llama_vision.backends.local.image_processor import to_pixel_values  # noqa: PLC0415 - see `ImagePreprocessor`

        model = self._model.model
        tiles = [self._tiles(image) for image, _ in images]
        inputs = to_pixel_values(
            tiles, self._preprocessor.config, self._model.device_map[VISION_MODEL], model.dtype
        )
        features = encode_tiles(
            model.model.vision_model,
            inputs["pixel_values"][:, 0],
            inputs["aspect_ratio_ids"],
            num_tiles=tiles[0].count,
        )
        vision_tokens = model.model.multi_modal_projector(features)
        self._write_kv(vision_tokens, [encoded for _, encoded in images])
        for image, encoded in images:
            encoded.is_encoded = True
            image.tiles = None

    def _tiles(self, image: ImageInput) -> "TiledImage":
        """The image's tiles, made again where the encoder cache had the image and evicted it since."""
        return image.tiles or self._preprocessor.tile(image.image, image.number)

    def _write_kv(self, vision_tokens: torch.Tensor, images: Sequence[EncodedImage]) -> None:
        """Project (images, num_vision_tokens, hidden_size) to keys and values of every cross-attention layer."""
        text_model = self._model.model.model.language_model
        for kv_cache in self._kv_caches:
            its_tokens = vision_tokens.to(kv_cache.device)
            block_ids = torch.tensor([image.blocks.block_ids for image in images], device=kv_cache.device)
            for layer in kv_cache.layout.cross_attention_layers:
                attention = text_model.layers[layer].cross_attn
                shape = *its_tokens.shape[:2], attention.num_key_value_heads, attention.head_dim
                keys = attention.k_norm(attention.k_proj(its_tokens).view(shape))
                values = attention.v_proj(its_tokens).view(shape)
                kv_cache.write_images(layer, block_ids, keys, values)

"""What the model sees in pictures: worked out once for each picture, and kept for the next question about it."""

import hashlib
import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch

from llama_vision.backends.local.loading import LoadedModel
from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image

_PICTURES_AT_ONCE = 8
"""Seeing one takes 19 TFLOP and a few GB for a moment with the 11B."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture, as the layers in which words look at pictures need it.

    Attributes:
        keys: By the layer's number in the network, (heads, columns, size).
        values: The same.
        columns: How many there are: one for each patch of each tile that is no padding.

    """

    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]
    columns: int

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return sum(one.nbytes for tensors in (self.keys, self.values) for one in tensors.values())


@dataclass(slots=True)
class Picture:
    """A picture of a prompt.

    Attributes:
        key: Equal for equal pictures.
        pixels: What the network takes, until it is seen.
        seen: What it saw.

    """

    key: bytes
    pixels: Any = None
    seen: Seen | None = None


class Vision:
    """The half of the network that sees, with a memory of what it has seen of late."""

    def __init__(self, loaded: LoadedModel, cache_bytes: int) -> None:
        self._loaded = loaded
        self._limit = cache_bytes
        self._cache: OrderedDict[bytes, Seen] = OrderedDict()
        self.cached_bytes = 0
        self.looks = 0

    def picture(self, image: Image, number: int) -> Picture:
        """Make a picture ready to be seen.

        Args:
            image: With its bytes.
            number: Which of the conversation's pictures it is, from 1.

        Returns:
            The picture, already seen where its like was lately.

        Raises:
            ImageError: It can't be decoded.

        """
        data = image.data or b""
        key = hashlib.blake2b(data, digest_size=16).digest()
        if (seen := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return Picture(key, seen=seen)
        opened = _open(image, number)
        return Picture(key, self._loaded.image_processor(images=[[opened]], return_tensors="pt"))

    def see(self, pictures: Sequence[Picture]) -> None:
        """Look at those pictures that were not seen yet; equal ones are looked at once."""
        fresh: dict[bytes, Picture] = {}
        for picture in pictures:
            picture.seen = picture.seen or self._cache.get(picture.key)
            if picture.seen is None:
                fresh.setdefault(picture.key, picture)
        new = list(fresh.values())
        for start in range(0, len(new), _PICTURES_AT_ONCE):
            self._look(new[start : start + _PICTURES_AT_ONCE])
        for picture in pictures:
            picture.seen = picture.seen or fresh[picture.key].seen
            picture.pixels = None

    def _look(self, pictures: Sequence[Picture]) -> None:
        network, device = self._loaded.network, self._loaded.device
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        given = {name: torch.cat([one.pixels[name] for one in pictures]).to(device) for name in names}
        given["pixel_values"] = given["pixel_values"].to(network.dtype)
        found = network.model.vision_model(**given).last_hidden_state
        states = network.model.multi_modal_projector(found)[:, 0]
        for picture, tiles in zip(pictures, states, strict=True):
            # Hugging Face fills up with empty tiles, which no word ever sees.
            real = tiles[: int(picture.pixels["num_tiles"][0][0])].flatten(0, 1)
            picture.seen = self._for_layers(real)
            self._keep(picture.key, picture.seen)
        self.looks += len(pictures)

    def _for_layers(self, states: torch.Tensor) -> Seen:
        """Turn (columns, width) into keys and values."""
        text = self._loaded.network.model.language_model
        keys: dict[int, torch.Tensor] = {}
        values: dict[int, torch.Tensor] = {}
        for number in self._loaded.network.config.text_config.cross_attention_layers:
            attention = text.layers[number].cross_attn
            shape = len(states), attention.num_key_value_heads, attention.head_dim
            keys[number] = attention.k_norm(attention.k_proj(states).view(shape)).transpose(0, 1).contiguous()
            values[number] = attention.v_proj(states).view(shape).transpose(0, 1).contiguous()
        return Seen(keys, values, len(states))

    def _keep(self, key: bytes, seen: Seen) -> None:
        if seen.size > self._limit:
            return
        self._cache[key] = seen
        self.cached_bytes += seen.size
        while self.cached_bytes > self._limit:
            self.cached_bytes -= self._cache.popitem(last=False)[1].size


def _open(picture: Image, number: int) -> PIL.Image.Image:
    try:
        opened = PIL.Image.open(io.BytesIO(picture.data or b""))
        opened.load()
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ImageError(f"Image {number} ({picture.media_type}) can't be decoded: {error}") from error
    return opened

"""What the model sees in pictures: worked out once for each picture, and kept for the next question about it."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llama_vision.backends.local.loading import LoadedModel
from llama_vision.core.messages import Image

if TYPE_CHECKING:
    from llama_vision.backends.local.pixels import PixelRules, Tiles

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
        tiles: The picture laid out, until it is seen.
        seen: What the network saw.

    """

    key: bytes
    tiles: "Tiles | None" = None
    seen: Seen | None = None


class Vision:
    """The half of the network that sees, with a memory of what it has seen of late.

    Attributes:
        cached_bytes: How much that takes.
        looks: How many pictures it has looked at.

    """

    def __init__(self, loaded: LoadedModel, cache_bytes: int) -> None:
        self._loaded = loaded
        self._limit = cache_bytes
        self._cache: OrderedDict[bytes, Seen] = OrderedDict()
        self._lock = threading.Lock()
        self._known_rules: PixelRules | None = None
        self.cached_bytes = 0
        self.looks = 0

    def picture(self, image: Image, number: int) -> Picture:
        """Make a picture ready to be seen. It may run in any thread, and takes milliseconds of it.

        Args:
            image: With its bytes.
            number: Which of the conversation's pictures it is, from 1.

        Returns:
            The picture, already seen where its like was lately.

        Raises:
            ImageError: It can't be decoded.
            LocalModelError: The checkpoint wants its pictures in a way that is not known here.

        """
        # Here and not above: who shows no pictures needs none of it.
        from llama_vision.backends.local.pixels import tiles_of  # noqa: PLC0415 - as said

        key = hashlib.blake2b(image.data or b"", digest_size=16).digest()
        with self._lock:
            if (seen := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                return Picture(key, seen=seen)
        return Picture(key, tiles=tiles_of(image, number, self._rules()))

    def see(self, pictures: Sequence[Picture]) -> None:
        """Look at those pictures that were not seen yet; equal ones are looked at once. For the engine's thread."""
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
            picture.tiles = None

    def _look(self, pictures: Sequence[Picture]) -> None:
        from llama_vision.backends.local.pixels import network_input  # noqa: PLC0415 - see `picture`

        network = self._loaded.network
        tiles = [picture.tiles for picture in pictures if picture.tiles is not None]
        given = network_input(tiles, self._rules(), self._loaded.device, network.dtype)
        found = network.model.vision_model(**given).last_hidden_state
        states = network.model.multi_modal_projector(found)[:, 0]
        for picture, laid, shown in zip(pictures, tiles, states, strict=True):
            # The rest are empty tiles, which no word ever sees.
            picture.seen = self._for_layers(shown[: laid.count].flatten(0, 1))
            self._keep(picture.key, picture.seen)
        self.looks += len(pictures)

    def _rules(self) -> "PixelRules":
        from llama_vision.backends.local.pixels import pixel_rules  # noqa: PLC0415 - see `picture`

        if self._known_rules is None:
            self._known_rules = pixel_rules(self._loaded.pixel_options)
        return self._known_rules

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
        with self._lock:
            self._cache[key] = seen
            self.cached_bytes += seen.size
            while self.cached_bytes > self._limit:
                self.cached_bytes -= self._cache.popitem(last=False)[1].size

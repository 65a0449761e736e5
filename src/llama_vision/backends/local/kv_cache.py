"""What the model remembers of the answers in the making: keys and values, a row for each answer."""

from typing import Any

import torch

_INITIAL_TOKENS = 256

_IDLE_CAPACITY_FACTOR = 4
"""Times as many columns as at first. More than 1,024 words, or four tiles, are given back when nobody needs them."""


class KVStore:
    """The keys and values of one kind of layers: (rows, heads, columns, size) for each layer.

    It grows by doubling, since most answers are far shorter than the longest one. New columns are zeros: what is masked
    still has to be a number.

    Attributes:
        keys: By the layer's number in the network.
        values: The same.
        generation: How often it has moved to other memory.

    """

    __slots__ = ("_empty", "_max_rows", "_unit", "columns", "growths", "keys", "rows", "values")

    def __init__(self, layers: list[int], empty: torch.Tensor, max_rows: int, unit: int) -> None:
        self._empty, self._max_rows, self._unit = empty, max_rows, unit
        self.rows: int = 0
        self.columns: int = 0
        self.growths: int = 0
        self.keys: dict[int, torch.Tensor] = dict.fromkeys(layers, empty)
        self.values: dict[int, torch.Tensor] = dict(self.keys)

    def ensure_capacity(self, num_seqs: int, capacity: int, max_columns: int | None = None) -> None:
        """Make room.

        Args:
            num_seqs: How many rows there have to be.
            capacity: How many columns.
            max_columns: More than these will never be asked for, if that is known.

        """
        if num_seqs <= self.rows and capacity <= self.columns:
            return
        wide = _doubled_until(self._unit, capacity)
        num_seqs = max(self.rows, min(_doubled_until(1, num_seqs), self._max_rows))
        capacity = max(self.columns, min(wide, max_columns or wide))
        self.growths += 1
        for tensors in (self.keys, self.values):
            for layer, old in tensors.items():
                tensors[layer] = self._resized(old, num_seqs, capacity)
        # Last, so that all is tried again after a failure for want of memory.
        self.rows, self.columns = num_seqs, capacity

    @property
    def is_oversized(self) -> bool:
        """Whether it has grown beyond what most answers need."""
        return self.columns > _IDLE_CAPACITY_FACTOR * self._unit

    def shrink(self) -> None:
        """Give all memory back."""
        self.growths += 1
        self.rows = self.columns = 0
        for tensors in (self.keys, self.values):
            tensors.update(dict.fromkeys(tensors, self._empty))

    def read(self, row: int, columns: int) -> torch.Tensor:
        """Copy the first columns of a row (keys and values of each layer, heads, columns, size)."""
        return torch.stack([one[row, :, :columns] for one in (*self.keys.values(), *self.values.values())])

    def write(self, row: int, remembered: torch.Tensor) -> None:
        """Put what was `read` into the first columns of a row."""
        for one, ours in zip((*self.keys.values(), *self.values.values()), remembered, strict=True):
            one[row, :, : ours.shape[1]] = ours

    def copy_row(self, source: int, target: int, columns: int) -> None:
        """Copy the first columns of a row into another row."""
        for tensors in (self.keys, self.values):
            for tensor in tensors.values():
                tensor[target, :, :columns] = tensor[source, :, :columns]

    @staticmethod
    def _resized(old: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        rows, columns = max(rows, old.shape[0]), max(columns, old.shape[2])
        if (rows, columns) == (old.shape[0], old.shape[2]):
            return old
        new = old.new_zeros(rows, old.shape[1], columns, old.shape[3])
        new[: old.shape[0], :, : old.shape[2]] = old
        return new


class KVCache:
    """A row for each answer in the making.

    Attributes:
        self_attention: Of the layers in which words look at words.
        cross_attention: Of the layers in which words look at images; without images it takes no memory.

    """

    __slots__ = ("cross_attention", "self_attention")

    def __init__(self, network: Any, max_rows: int) -> None:
        text = network.config.text_config
        crossing = set(text.cross_attention_layers)
        own = [layer for layer in range(text.num_hidden_layers) if layer not in crossing]
        size = text.hidden_size // text.num_attention_heads
        empty = torch.zeros(0, text.num_key_value_heads, 0, size, dtype=network.dtype, device=network.device)
        self.self_attention = KVStore(own, empty, max_rows, _INITIAL_TOKENS)
        self.cross_attention = KVStore(
            sorted(crossing), empty, max_rows, network.model.vision_model.num_patches
        )

    @property
    def generation(self) -> int:
        """How often anything has moved to other memory."""
        return self.self_attention.growths + self.cross_attention.growths

    @property
    def large(self) -> bool:
        """Whether they have grown beyond what most answers need."""
        return self.self_attention.is_oversized or self.cross_attention.is_oversized

    def shrink(self) -> None:
        """Give back what is beyond what most answers need; nobody may be in a row."""
        for store in (self.self_attention, self.cross_attention):
            if store.is_oversized:
                store.shrink()

    def move(self, source: int, target: int, words: int, vision: int) -> None:
        """Copy a row over another one.

        Args:
            source: From here.
            target: To here.
            words: How many columns of words it has.
            vision: How many columns of images.

        """
        self.self_attention.copy_row(source, target, words)
        if vision:
            self.cross_attention.copy_row(source, target, vision)


def _doubled_until(start: int, enough: int) -> int:
    while start < enough:
        start *= 2
    return start

"""KV cache: keys and values of the running sequences, one row for each."""

from typing import Any

import torch

_INITIAL_CAPACITY = 256

_IDLE_CAPACITY_FACTOR = 4
"""Times the initial capacity: more than 1,024 tokens, or four tiles, are freed when the engine is idle."""


class KVCacheGroup:
    """The layers of one kind, each with keys and values of shape (num_rows, num_kv_heads, capacity, head_dim).

    Rows and capacity grow by doubling, since most sequences are far shorter than the longest. New memory is zeroed:
    also what the attention mask hides must be a number.

    Attributes:
        keys: By layer index; `values` too.
        num_rows: Sequences there is room for.
        capacity: Tokens there is room for, of each sequence.
        generation: How often the tensors were reallocated.
    """

    def __init__(self, layers: list[int], empty: torch.Tensor, max_rows: int, initial_capacity: int) -> None:
        self._empty, self._max_rows, self._initial_capacity = empty, max_rows, initial_capacity
        self.num_rows: int = 0
        self.capacity: int = 0
        self.generation: int = 0
        self.keys: dict[int, torch.Tensor] = dict.fromkeys(layers, empty)
        self.values: dict[int, torch.Tensor] = dict(self.keys)

    def ensure_capacity(self, num_rows: int, capacity: int, max_capacity: int | None = None) -> None:
        """Reallocate where rows or tokens are too few; `max_capacity` bounds what will ever be needed."""
        if num_rows <= self.num_rows and capacity <= self.capacity:
            return
        doubled = _doubled_until(self._initial_capacity, capacity)
        num_rows = max(self.num_rows, min(_doubled_until(1, num_rows), self._max_rows))
        capacity = max(self.capacity, min(doubled, max_capacity or doubled))
        self.generation += 1
        for tensors in (self.keys, self.values):
            for layer, old in tensors.items():
                tensors[layer] = _resized(old, num_rows, capacity)
        # Last, so that all is tried again after an out-of-memory error.
        self.num_rows, self.capacity = num_rows, capacity

    @property
    def is_oversized(self) -> bool:
        """Whether it has grown beyond what most requests need."""
        return self.capacity > _IDLE_CAPACITY_FACTOR * self._initial_capacity

    def free(self) -> None:
        """Free all memory."""
        self.generation += 1
        self.num_rows = self.capacity = 0
        for tensors in (self.keys, self.values):
            tensors.update(dict.fromkeys(tensors, self._empty))

    def read(self, row: int, seq_len: int) -> torch.Tensor:
        """Copy the first tokens of a row: (2 x layers, num_kv_heads, seq_len, head_dim), keys first."""
        return torch.stack(
            [tensor[row, :, :seq_len] for tensor in (*self.keys.values(), *self.values.values())]
        )

    def write(self, row: int, kv: torch.Tensor) -> None:
        """Write what `read` returned to the first tokens of a row."""
        for tensor, layer_kv in zip((*self.keys.values(), *self.values.values()), kv, strict=True):
            tensor[row, :, : layer_kv.shape[1]] = layer_kv

    def zero_row(self, row: int) -> None:
        """Zero a row that may hold NaN: weighed with the 0 of an attention mask it is still NaN."""
        if row < self.num_rows:
            for tensors in (self.keys, self.values):
                for tensor in tensors.values():
                    tensor[row] = 0

    def copy_row(self, source: int, target: int, seq_len: int) -> None:
        """Copy the first tokens of a row to another row."""
        for tensors in (self.keys, self.values):
            for tensor in tensors.values():
                tensor[target, :, :seq_len] = tensor[source, :, :seq_len]


class KVCache:
    """The KV cache of a Mllama text decoder; `cross_attention` holds vision tokens, none while no request has images."""

    def __init__(self, model: Any, max_rows: int) -> None:
        config = model.config.text_config
        cross = set(config.cross_attention_layers)
        head_dim = config.hidden_size // config.num_attention_heads
        empty = torch.zeros(
            0, config.num_key_value_heads, 0, head_dim, dtype=model.dtype, device=model.device
        )
        self_attention_layers = [layer for layer in range(config.num_hidden_layers) if layer not in cross]
        self.self_attention = KVCacheGroup(self_attention_layers, empty, max_rows, _INITIAL_CAPACITY)
        num_patches = model.model.vision_model.num_patches
        self.cross_attention = KVCacheGroup(sorted(cross), empty, max_rows, num_patches)

    @property
    def generation(self) -> int:
        """How often any tensor was reallocated: CUDA graphs captured before are invalid."""
        return self.self_attention.generation + self.cross_attention.generation

    @property
    def is_oversized(self) -> bool:
        """Whether it has grown beyond what most requests need."""
        return self.self_attention.is_oversized or self.cross_attention.is_oversized

    def shrink(self) -> None:
        """Free what has grown beyond what most requests need; no sequence may be running."""
        for group in (self.self_attention, self.cross_attention):
            if group.is_oversized:
                group.free()

    def zero_row(self, row: int) -> None:
        """Zero a row of both groups."""
        self.self_attention.zero_row(row)
        self.cross_attention.zero_row(row)

    def copy_row(self, source: int, target: int, seq_len: int, cross_kv_len: int) -> None:
        """Copy a sequence's computed tokens and vision tokens to another row."""
        self.self_attention.copy_row(source, target, seq_len)
        if cross_kv_len:
            self.cross_attention.copy_row(source, target, cross_kv_len)


def _resized(old: torch.Tensor, num_rows: int, capacity: int) -> torch.Tensor:
    num_rows, capacity = max(num_rows, old.shape[0]), max(capacity, old.shape[2])
    if (num_rows, capacity) == (old.shape[0], old.shape[2]):
        return old
    new = old.new_zeros(num_rows, old.shape[1], capacity, old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new


def _doubled_until(start: int, minimum: int) -> int:
    while start < minimum:
        start *= 2
    return start

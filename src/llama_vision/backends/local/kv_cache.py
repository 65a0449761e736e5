"""KV cache: one pool of blocks for the keys and values of tokens and of images, allocated once.

With the model on several devices each pipeline stage has a pool of its own, with the same block ids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from llama_vision.backends.local.block_pool import NULL_BLOCK

_BLOCK_SIZE = 16
"""Tokens of a block, as in vLLM; the smallest multiple of it whose memory vision tokens divide."""


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """What a block holds: a few tokens in all self-attention layers, or vision tokens in all cross-attention layers.

    So both kinds take the same memory, and any free block serves either. Of some layers only, the larger kind decides.

    Attributes:
        self_attention_layers: Layer indices, in order.
        cross_attention_layers: The same.
        block_size: Tokens.
        vision_block_size: Vision tokens.
    """

    self_attention_layers: tuple[int, ...]
    cross_attention_layers: tuple[int, ...]
    num_kv_heads: int
    head_dim: int
    block_size: int
    vision_block_size: int

    @property
    def num_elements(self) -> int:
        """Numbers of a block, which keys and values of a head divide, of tokens and of vision tokens."""
        sizes = self.block_size, self.vision_block_size
        largest = max(len(self.self_attention_layers) * sizes[0], len(self.cross_attention_layers) * sizes[1])
        unit = math.lcm(*sizes)
        return -(-largest // unit) * unit * 2 * self.num_kv_heads * self.head_dim

    @property
    def num_token_elements(self) -> int:
        """Numbers of a token."""
        return len(self.self_attention_layers) * 2 * self.num_kv_heads * self.head_dim

    def of_layers(self, layers: range) -> "BlockLayout":
        """The layout of these layers' part of the same blocks."""
        return replace(
            self,
            self_attention_layers=tuple(layer for layer in self.self_attention_layers if layer in layers),
            cross_attention_layers=tuple(layer for layer in self.cross_attention_layers if layer in layers),
        )

    def num_blocks(self, num_tokens: int) -> int:
        """Blocks of so many tokens."""
        return -(-num_tokens // self.block_size)

    def num_vision_blocks(self, num_vision_tokens: int) -> int:
        """Blocks of so many vision tokens of an image."""
        return -(-num_vision_tokens // self.vision_block_size)


def block_layout(text_config: Any) -> BlockLayout:
    """Lay out the blocks of a Mllama's text decoder."""
    cross = tuple(sorted(text_config.cross_attention_layers))
    layers = tuple(layer for layer in range(text_config.num_hidden_layers) if layer not in cross)
    block_size = _BLOCK_SIZE * len(cross) // math.gcd(_BLOCK_SIZE * len(layers), len(cross))
    return BlockLayout(
        self_attention_layers=layers,
        cross_attention_layers=cross,
        num_kv_heads=text_config.num_key_value_heads,
        head_dim=text_config.hidden_size // text_config.num_attention_heads,
        block_size=block_size,
        vision_block_size=block_size * len(layers) // len(cross),
    )


class KVCache:
    """The memory of the block pool.

    Attributes:
        device: Where it is.
        tokens: (num_blocks, self-attention layers, 2, num_kv_heads, block_size, head_dim), keys before values.
        vision: The same memory: (num_blocks, cross-attention layers, 2, num_kv_heads, vision_block_size, head_dim).
    """

    def __init__(
        self, layout: BlockLayout, num_blocks: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.layout, self.device = layout, device
        # Not zeroed as a whole: on a CPU, memory that was never touched takes no room.
        self._pool = torch.empty(num_blocks, layout.num_elements, dtype=dtype, device=device)
        self._pool[NULL_BLOCK] = 0
        self.tokens = self._view(len(layout.self_attention_layers), layout.block_size)
        self.vision = self._view(len(layout.cross_attention_layers), layout.vision_block_size)

    @property
    def num_blocks(self) -> int:
        """Blocks, with the null block."""
        return len(self._pool)

    @property
    def num_bytes(self) -> int:
        """Memory of the pool."""
        return self._pool.nbytes

    @property
    def token_bytes_per_layer(self) -> int:
        """Memory of the keys and values of a token in one layer."""
        return 2 * self.layout.num_kv_heads * self.layout.head_dim * self._pool.itemsize

    def zero_blocks(self, block_ids: Sequence[int]) -> None:
        """Zero newly allocated blocks: what an attention mask hides must be a number."""
        if block_ids:
            self._pool[torch.tensor(block_ids, device=self._pool.device)] = 0

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block of a shared prefix, after whose first tokens others are to follow."""
        self._pool[target] = self._pool[source]

    def write_images(
        self, layer: int, block_ids: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write the keys and values of one cross-attention layer to images' blocks, (images, blocks).

        Keys and values are (images, num_vision_tokens, num_kv_heads, head_dim). What is left of each last block becomes zeros.
        """
        index, size = self.layout.cross_attention_layers.index(layer), self.layout.vision_block_size
        padding = block_ids.shape[1] * size - keys.shape[1]
        for kind, tensor in enumerate((keys, values)):
            padded = torch.nn.functional.pad(tensor, (0, 0, 0, 0, 0, padding))
            blocks = padded.view(*block_ids.shape, size, *tensor.shape[2:])
            self.vision[block_ids, index, kind] = blocks.transpose(2, 3)

    def _view(self, num_layers: int, size: int) -> torch.Tensor:
        shape = num_layers, 2, self.layout.num_kv_heads, size, self.layout.head_dim
        return self._pool[:, : math.prod(shape)].view(self.num_blocks, *shape)

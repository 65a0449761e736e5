"""KV cache: one pool of blocks for the keys and values of tokens and of images, allocated once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llama_vision.backends.local.block_pool import NULL_BLOCK

_BLOCK_SIZE = 16
"""Tokens of a block, as in vLLM; the smallest multiple of it whose memory vision tokens divide."""


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """What a block holds: a few tokens in all self-attention layers, or vision tokens in all cross-attention layers.

    So both kinds take the same memory, and any free block serves either.

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
        """Numbers of a block."""
        return self.num_token_elements * self.block_size

    @property
    def num_token_elements(self) -> int:
        """Numbers of a token."""
        return len(self.self_attention_layers) * 2 * self.num_kv_heads * self.head_dim

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
        tokens: (num_blocks, self-attention layers, 2, num_kv_heads, block_size, head_dim), keys before values.
        vision: The same memory: (num_blocks, cross-attention layers, 2, num_kv_heads, vision_block_size, head_dim).
    """

    def __init__(
        self, layout: BlockLayout, num_blocks: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.layout = layout
        # Not zeroed as a whole: on a CPU, memory that was never touched takes no room.
        pool = torch.empty(num_blocks, layout.num_elements, dtype=dtype, device=device)
        pool[NULL_BLOCK] = 0
        heads = layout.num_kv_heads
        self._pool = pool
        self.tokens = pool.view(
            *(num_blocks, len(layout.self_attention_layers), 2, heads, layout.block_size, layout.head_dim)
        )
        self.vision = pool.view(
            *(num_blocks, len(layout.cross_attention_layers), 2, heads, layout.vision_block_size),
            layout.head_dim,
        )

    @property
    def num_blocks(self) -> int:
        """Blocks, with the null block."""
        return len(self._pool)

    @property
    def num_bytes(self) -> int:
        """Memory of the pool."""
        return self._pool.nbytes

    def zero_blocks(self, block_ids: Sequence[int]) -> None:
        """Zero newly allocated blocks: what an attention mask hides must be a number."""
        if block_ids:
            self._pool[torch.tensor(block_ids, device=self._pool.device)] = 0

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block of a shared prefix, after whose first tokens others are to follow."""
        self._pool[target] = self._pool[source]

    def write_image(
        self, layer: int, block_ids: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write an image's keys and values of one cross-attention layer, (num_vision_tokens, num_kv_heads, head_dim).

        What is left of the last block becomes zeros.
        """
        layout = self.layout
        index = layout.cross_attention_layers.index(layer)
        size = len(block_ids) * layout.vision_block_size
        for kind, tensor in enumerate((keys, values)):
            padded = torch.nn.functional.pad(tensor, (0, 0, 0, 0, 0, size - len(tensor)))
            blocks = padded.view(len(block_ids), layout.vision_block_size, *tensor.shape[1:])
            self.vision[block_ids, index, kind] = blocks.transpose(1, 2)

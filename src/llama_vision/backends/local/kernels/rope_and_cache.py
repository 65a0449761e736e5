"""Rotary position embedding of queries and keys, and the write of keys and values to their blocks."""

from typing import Protocol

import torch


class RopeAndCache(Protocol):
    """Rotate queries and keys in place, then write keys and values to the KV cache.

    Args:
        heads: Queries, keys and values, (tokens, num_heads + 2 x num_kv_heads, head_dim).
        cos: Cosines of each token's position, (tokens, head_dim).
        sin: Sines, the first half of them negative: the sign of transformers' `rotate_half`.
        cache: One layer of the KV cache, (num_blocks, 2, num_kv_heads, block_size, head_dim), keys before values.
        block_ids: The block of each token, (tokens,).
        offsets: Its place there, (tokens,).
    """

    def __call__(
        self,
        heads: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        cache: torch.Tensor,
        block_ids: torch.Tensor,
        offsets: torch.Tensor,
    ) -> None:
        """See the class."""
        ...


def rope_and_cache(
    heads: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    cache: torch.Tensor,
    block_ids: torch.Tensor,
    offsets: torch.Tensor,
) -> None:
    """The definition of `RopeAndCache`."""
    num_tokens, num_heads, head_dim = heads.shape
    num_kv_heads = cache.shape[2]
    rotated = heads[:, : num_heads - num_kv_heads]
    first, second = rotated.chunk(2, dim=-1)
    swapped = torch.cat((second, first), dim=-1)
    rotated.mul_(cos[:, None]).addcmul_(swapped, sin[:, None])
    kv = heads[:, num_heads - 2 * num_kv_heads :]
    cache[block_ids, :, :, offsets] = kv.view(num_tokens, 2, num_kv_heads, head_dim)

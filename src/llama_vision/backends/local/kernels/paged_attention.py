"""Paged attention: one query of each sequence attends to keys and values in blocks."""

from typing import Protocol

import torch


class PagedAttention(Protocol):
    """Grouped-query attention over block tables, with all lengths on the device: nothing depends on their values.

    Args:
        query: (sequences, num_heads, head_dim).
        cache: One layer of the KV cache, (num_blocks, 2, num_kv_heads, block_size, head_dim), keys before values.
        tables: Block ids, (rows, blocks).
        rows: The row of `tables` that each sequence has, (sequences,).
        lens: Columns that each sequence attends to, from the first block on, (sequences,).
        counts: How many columns of each block hold anything, from its first one on, shaped as `tables`. None where all up
            to `lens` do.

    Returns:
        The shape of query; zeros where there is nothing to attend to.
    """

    def __call__(
        self,
        query: torch.Tensor,
        cache: torch.Tensor,
        tables: torch.Tensor,
        rows: torch.Tensor,
        lens: torch.Tensor,
        counts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See the class."""
        ...


def paged_attention(
    query: torch.Tensor,
    cache: torch.Tensor,
    tables: torch.Tensor,
    rows: torch.Tensor,
    lens: torch.Tensor,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition of `PagedAttention`."""
    _, _, num_kv_heads, block_size, head_dim = cache.shape
    num_seqs, num_heads, _ = query.shape
    kv = cache[tables[rows].long()].permute(2, 0, 3, 1, 4, 5)  # keys and values of all sequences' blocks
    keys, values = kv.reshape(2, num_seqs, num_kv_heads, -1, head_dim)
    columns = torch.arange(keys.shape[2], device=query.device)
    visible = columns < lens[:, None]
    if counts is not None:
        offsets = torch.arange(block_size, device=query.device)
        visible &= (offsets < counts[rows][..., None]).flatten(1)
    grouped = query.view(num_seqs, num_kv_heads, num_heads // num_kv_heads, head_dim)
    scores = (grouped @ keys.transpose(2, 3)).float() * head_dim**-0.5
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0.0).to(values.dtype)  # a softmax over nothing is NaN
    return (weights @ values).view(num_seqs, num_heads, head_dim)

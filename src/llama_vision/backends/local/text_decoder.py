"""The half of the network that writes, over many rows at once.

It takes the modules that transformers has loaded by their names, and calls their weights itself: so each row stands at a
position of its own, keys and values are written where they stay, and nothing is repeated for the heads that share them.
Words that see no image take nothing from one, after attention and after the MLP, as in Meta's reference
(llama-models, multimodal/model.py); transformers 5.23 does the second only (its issue 39379).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from llama_vision.backends.local.kv_cache import KVCache, KVStore


@dataclass(frozen=True, slots=True)
class CrossAttentionInputs:
    """What the first rows of a pass see of their images.

    Attributes:
        num_seqs: How many of the rows have images; they come first.
        keys: For each layer in which words look at images, (rows, heads, columns, size).
        values: The same.
        veil: 0 where a word sees a column, minus infinity where not (rows, 1, words or 1, columns); None where all do.
        open: 1 for words that see anything, 0 for others (rows, words, 1); None means that all do.

    """

    num_seqs: int
    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]
    attention_mask: torch.Tensor | None = None
    row_mask: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """One way through the layers.

    Attributes:
        input_ids: What goes in (rows, words).
        positions: Where each stands in its text (rows, words).
        cache_rows: Which rows of the slots they belong to (rows, 1).
        kv_len: How many columns of the slots are looked at.
        veil: 0 where a word sees a column, minus infinity where not (rows or 1, 1, words, reach); None where all do.
        cross_attention: What they see of images, where any row does.
        first_row: The first of the places, where the others follow one by one, so that the slots need not be copied to be read.

    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    cache_rows: torch.Tensor
    kv_len: int
    attention_mask: torch.Tensor | None
    cross_attention: CrossAttentionInputs | None
    first_row: int | None


class TextDecoder:
    """The text half of a Mllama."""

    __slots__ = (
        "_cos",
        "_cross_attention_layers",
        "_gates",
        "_head_size",
        "_lm_head",
        "_scale",
        "_sin",
        "_text",
    )

    def __init__(self, network: Any, max_len: int) -> None:
        config = network.config.text_config
        self._text = network.model.language_model
        self._lm_head = network.lm_head
        self._cross_attention_layers = frozenset[int](config.cross_attention_layers)
        self._head_size = config.hidden_size // config.num_attention_heads
        self._scale = self._head_size**-0.5
        with torch.inference_mode():
            self._gates: dict[int, tuple[torch.Tensor, torch.Tensor]] = {
                layer: (module.cross_attn_attn_gate.tanh(), module.cross_attn_mlp_gate.tanh())
                for layer, module in enumerate(self._text.layers)
                if layer in self._cross_attention_layers
            }
            positions = torch.arange(max_len, device=network.device)[None]
            like = torch.zeros((), dtype=network.dtype, device=network.device)
            cos, sin = self._text.rotary_emb(like, position_ids=positions)
        half = self._head_size // 2
        self._cos: torch.Tensor = cos[0]
        # Half of a rotation changes its sign; that is done here once.
        self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)

    def forward(self, step: ForwardBatch, slots: KVCache) -> torch.Tensor:
        """Go through the layers, and write the keys and values of the words into the slots.

        Args:
            step: What goes in.
            slots: What is remembered.

        Returns:
            What stands behind the last layer (rows, words, width), not yet normalised.

        """
        hidden = self._text.embed_tokens(step.input_ids)
        rotation = self._cos[step.positions][:, :, None], self._sin[step.positions][:, :, None]
        for number, layer in enumerate(self._text.layers):
            if number not in self._cross_attention_layers:
                hidden = hidden + self._self_attention(
                    layer, number, hidden, step, slots.self_attention, rotation
                )
                hidden = hidden + layer.mlp(_rms_norm(layer.post_attention_layernorm, hidden))
            elif step.cross_attention is not None:
                seeing = self._cross_attention_layer(
                    layer, number, hidden[: step.cross_attention.num_seqs], step.cross_attention
                )
                rest = hidden[step.cross_attention.num_seqs :]
                hidden = torch.cat((seeing, rest)) if len(rest) else seeing
        return hidden

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score what may come next: (rows, width) -> (rows, vocabulary)."""
        return self._lm_head(_rms_norm(self._text.norm, hidden))

    def _self_attention(
        self,
        layer: Any,
        number: int,
        hidden: torch.Tensor,
        step: ForwardBatch,
        store: KVStore,
        rotation: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Let words look at the words before them."""
        attention = layer.self_attn
        normed = _rms_norm(layer.input_layernorm, hidden)
        query, key = self._split_heads(attention.q_proj(normed)), self._split_heads(attention.k_proj(normed))
        rotated = _apply_rotary_pos_emb(torch.cat((query, key), dim=2), *rotation)
        query, key = rotated[:, :, : query.shape[2]], rotated[:, :, query.shape[2] :]
        keys, values = store.keys[number], store.values[number]
        keys[step.cache_rows, :, step.positions] = key
        values[step.cache_rows, :, step.positions] = self._split_heads(attention.v_proj(normed))
        batch = (
            step.cache_rows[:, 0]
            if step.first_row is None
            else slice(step.first_row, step.first_row + len(step.input_ids))
        )
        attn_output = self._grouped_query_attention(
            query, keys[batch, :, : step.kv_len], values[batch, :, : step.kv_len], step.attention_mask
        )
        return attention.o_proj(attn_output)

    def _cross_attention_layer(
        self, layer: Any, number: int, hidden: torch.Tensor, sight: CrossAttentionInputs
    ) -> torch.Tensor:
        """Let words look at images."""
        attention, (attention_gate, mlp_gate) = layer.cross_attn, self._gates[number]
        query = _rms_norm(
            attention.q_norm, self._split_heads(attention.q_proj(_rms_norm(layer.input_layernorm, hidden)))
        )
        seen = attention.o_proj(
            self._grouped_query_attention(
                query, sight.keys[number], sight.values[number], sight.attention_mask
            )
        )
        hidden = hidden + attention_gate * (seen if sight.row_mask is None else sight.row_mask * seen)
        mlp_output = layer.mlp(_rms_norm(layer.post_attention_layernorm, hidden))
        return hidden + mlp_gate * (mlp_output if sight.row_mask is None else sight.row_mask * mlp_output)

    def _split_heads(self, projected: torch.Tensor) -> torch.Tensor:
        """Cut (rows, words, width) into (rows, words, heads, size)."""
        return projected.view(*projected.shape[:2], -1, self._head_size)

    def _grouped_query_attention(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, veil: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend, with the heads that share keys and values put behind one another as if they were more words.

        Args:
            query: (rows, words, heads, size).
            keys: (rows, fewer heads, columns, size).
            values: The same.
            veil: (rows or 1, 1, words or 1, columns), or None.

        Returns:
            (rows, words, width).

        """
        rows, seq_len, heads, size = query.shape
        num_kv_heads = keys.shape[1]
        num_queries_per_kv = heads // num_kv_heads
        if seq_len == 1:
            packed = query.view(rows, num_kv_heads, num_queries_per_kv, size)
        else:
            packed = query.view(rows, seq_len, num_kv_heads, num_queries_per_kv, size).permute(0, 2, 3, 1, 4)
            packed = packed.reshape(rows, num_kv_heads, num_queries_per_kv * seq_len, size)
            veil = veil if veil is None else veil.repeat(1, 1, num_queries_per_kv, 1)
        seen = functional.scaled_dot_product_attention(
            packed, keys, values, attn_mask=veil, scale=self._scale
        )
        if seq_len > 1:
            seen = seen.view(rows, num_kv_heads, num_queries_per_kv, seq_len, size).permute(0, 3, 1, 2, 4)
        return seen.reshape(rows, seq_len, heads * size)


def _rms_norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _apply_rotary_pos_emb(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn pairs of numbers by their position; `sin` has the signs in it."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((second, first), dim=-1) * sin

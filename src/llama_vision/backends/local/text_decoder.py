"""Mllama text decoder over a batch of sequences with a KV cache.

It calls the weights of transformers' modules itself, so that each row has its own position, keys and values are written
in place, and grouped-query attention repeats none of them. Tokens without a visible image get zero from both parts of a
cross-attention layer, attention and MLP, as in Meta's reference (llama-models, multimodal/model.py); transformers 5.23
masks the MLP only (its issue 39379).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from llama_vision.backends.local.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class CrossAttentionInputs:
    """The vision tokens that the first rows of a forward pass attend to.

    Attributes:
        num_seqs: Rows with images; they come first.
        keys: By layer index, (num_seqs, num_kv_heads, cross_kv_len, head_dim).
        values: The same.
        attention_mask: Additive, (num_seqs, 1, seq_len or 1, cross_kv_len); None where all is visible.
        row_mask: 1 for tokens with a visible image, else 0, (num_seqs, seq_len, 1): transformers'
            `full_text_row_masked_out_mask`. None where all are 1.
    """

    num_seqs: int
    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]
    attention_mask: torch.Tensor | None = None
    row_mask: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """Inputs of one forward pass, prefill or decode.

    Attributes:
        input_ids: (batch, seq_len).
        positions: Position of each token in its sequence, (batch, seq_len).
        cache_rows: Row of the KV cache of each sequence, (batch, 1).
        kv_len: How many cached tokens to attend to, the new ones included.
        attention_mask: Additive, (batch or 1, 1, seq_len, kv_len); None where all is visible.
        cross_attention: None where no token has a visible image.
        first_row: The first of the cache rows where they are contiguous: the KV cache is then read without a copy.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    cache_rows: torch.Tensor
    kv_len: int
    attention_mask: torch.Tensor | None
    cross_attention: CrossAttentionInputs | None
    first_row: int | None


class TextDecoder:
    """Forward pass of a Mllama's text decoder."""

    def __init__(self, model: Any, max_model_len: int) -> None:
        config = model.config.text_config
        self._text_model = model.model.language_model
        self._lm_head = model.lm_head
        self._cross_attention_layers = frozenset[int](config.cross_attention_layers)
        self._head_dim = config.hidden_size // config.num_attention_heads
        self._scale = self._head_dim**-0.5
        with torch.inference_mode():
            self._gates: dict[int, tuple[torch.Tensor, torch.Tensor]] = {
                index: (layer.cross_attn_attn_gate.tanh(), layer.cross_attn_mlp_gate.tanh())
                for index, layer in enumerate(self._text_model.layers)
                if index in self._cross_attention_layers
            }
            positions = torch.arange(max_model_len, device=model.device)[None]
            reference = torch.zeros((), dtype=model.dtype, device=model.device)
            cos, sin = self._text_model.rotary_emb(reference, position_ids=positions)
        half = self._head_dim // 2
        self._cos: torch.Tensor = cos[0]
        # The sign of transformers' `rotate_half` is folded into sin.
        self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)

    def forward(self, batch: ForwardBatch, kv_cache: KVCache) -> torch.Tensor:
        """Run the layers, and write the new tokens' keys and values to the KV cache.

        Returns:
            Hidden states before the final RMSNorm, (batch, seq_len, hidden_size).
        """
        hidden = self._text_model.embed_tokens(batch.input_ids)
        cos_sin = self._cos[batch.positions][:, :, None], self._sin[batch.positions][:, :, None]
        cross = batch.cross_attention
        for index, layer in enumerate(self._text_model.layers):
            if index not in self._cross_attention_layers:
                hidden = hidden + self._self_attention(layer, index, hidden, batch, kv_cache, cos_sin)
                hidden = hidden + layer.mlp(_rms_norm(layer.post_attention_layernorm, hidden))
            elif cross is not None:
                with_images = self._cross_attention_layer(layer, index, hidden[: cross.num_seqs], cross)
                text_only = hidden[cross.num_seqs :]
                hidden = torch.cat((with_images, text_only)) if len(text_only) else with_images
        return hidden

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final RMSNorm and LM head: (batch, hidden_size) -> (batch, vocab_size)."""
        return self._lm_head(_rms_norm(self._text_model.norm, hidden))

    def _self_attention(
        self,
        layer: Any,
        index: int,
        hidden: torch.Tensor,
        batch: ForwardBatch,
        kv_cache: KVCache,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Causal self-attention over the KV cache, with RoPE applied to queries and keys."""
        attention = layer.self_attn
        normed = _rms_norm(layer.input_layernorm, hidden)
        query, key = self._split_heads(attention.q_proj(normed)), self._split_heads(attention.k_proj(normed))
        rotated = _apply_rotary_pos_emb(torch.cat((query, key), dim=2), *cos_sin)
        query, key = rotated[:, :, : query.shape[2]], rotated[:, :, query.shape[2] :]
        keys, values = kv_cache.self_attention.keys[index], kv_cache.self_attention.values[index]
        keys[batch.cache_rows, :, batch.positions] = key
        values[batch.cache_rows, :, batch.positions] = self._split_heads(attention.v_proj(normed))
        first = batch.first_row
        rows = batch.cache_rows[:, 0] if first is None else slice(first, first + len(batch.input_ids))
        keys, values = keys[rows, :, : batch.kv_len], values[rows, :, : batch.kv_len]
        return attention.o_proj(self._grouped_query_attention(query, keys, values, batch.attention_mask))

    def _cross_attention_layer(
        self, layer: Any, index: int, hidden: torch.Tensor, cross: CrossAttentionInputs
    ) -> torch.Tensor:
        """Gated cross-attention to the vision tokens, and gated MLP."""
        attention, (attention_gate, mlp_gate) = layer.cross_attn, self._gates[index]
        query = self._split_heads(attention.q_proj(_rms_norm(layer.input_layernorm, hidden)))
        query, keys, values = _rms_norm(attention.q_norm, query), cross.keys[index], cross.values[index]
        attn_output = self._grouped_query_attention(query, keys, values, cross.attention_mask)
        attn_output = attention.o_proj(attn_output)
        row_mask = cross.row_mask
        hidden = hidden + attention_gate * (attn_output if row_mask is None else row_mask * attn_output)
        mlp_output = layer.mlp(_rms_norm(layer.post_attention_layernorm, hidden))
        return hidden + mlp_gate * (mlp_output if row_mask is None else row_mask * mlp_output)

    def _split_heads(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, seq_len, heads x head_dim) -> (batch, seq_len, heads, head_dim)."""
        return projected.view(*projected.shape[:2], -1, self._head_dim)

    def _grouped_query_attention(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Grouped-query attention: the query heads of one KV head are folded into the sequence dimension.

        Query (batch, seq_len, num_heads, head_dim), keys and values (batch, num_kv_heads, kv_len, head_dim), additive mask
        (batch or 1, 1, seq_len or 1, kv_len) -> (batch, seq_len, num_heads x head_dim).
        """
        batch, seq_len, num_heads, head_dim = query.shape
        num_kv_heads = keys.shape[1]
        num_queries_per_kv = num_heads // num_kv_heads
        if seq_len == 1:
            folded = query.view(batch, num_kv_heads, num_queries_per_kv, head_dim)
        else:
            folded = query.view(batch, seq_len, num_kv_heads, num_queries_per_kv, head_dim)
            folded = folded.permute(0, 2, 3, 1, 4).reshape(batch, num_kv_heads, -1, head_dim)
            if attention_mask is not None:
                attention_mask = attention_mask.repeat(1, 1, num_queries_per_kv, 1)
        attn_output = functional.scaled_dot_product_attention(
            folded, keys, values, attn_mask=attention_mask, scale=self._scale
        )
        if seq_len > 1:
            attn_output = attn_output.view(batch, num_kv_heads, num_queries_per_kv, seq_len, head_dim)
            attn_output = attn_output.permute(0, 3, 1, 2, 4)
        return attn_output.reshape(batch, seq_len, -1)


def _rms_norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _apply_rotary_pos_emb(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding; `sin` carries the sign of `rotate_half`."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((second, first), dim=-1) * sin

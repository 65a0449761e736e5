"""Mllama text decoder over a batch of sequences with a KV cache.

It calls the weights of transformers' modules itself, so that each row has its own position, keys and values are written
in place, and grouped-query attention repeats none of them. Tokens without a visible image get zero from both parts of a
cross-attention layer, attention and MLP, as in Meta's reference (llama-models, multimodal/model.py); transformers 5.23
masks the MLP only (its issue 39379).
"""

import itertools
from typing import Any

import torch
from torch.nn import functional

from llama_vision.backends.local.attention import Attention
from llama_vision.backends.local.decoder_weights import (
    MLP,
    CrossAttentionLayer,
    SelfAttentionLayer,
    decoder_weights,
)
from llama_vision.backends.local.kv_cache import BlockLayout


class TextDecoder:
    """Forward pass of a Mllama's text decoder."""

    def __init__(self, model: Any, layout: BlockLayout, max_model_len: int) -> None:
        self._weights = decoder_weights(model)
        self._num_kv_heads, self._head_dim = layout.num_kv_heads, layout.head_dim
        with torch.inference_mode():
            positions = torch.arange(max_model_len, device=model.device)[None]
            reference = torch.zeros((), dtype=model.dtype, device=model.device)
            cos, sin = self._weights.rotary_emb(reference, position_ids=positions)
        half = self._head_dim // 2
        self._cos: torch.Tensor = cos[0]
        # The sign of transformers' `rotate_half` is folded into sin.
        self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, attention: Attention) -> torch.Tensor:
        """Run the layers over tokens of one or more sequences, (tokens,), at these positions, (tokens,).

        Returns:
            Hidden states before the final RMSNorm, (tokens, hidden_size).
        """
        hidden = self._weights.embedding(input_ids)
        cos_sin = self._cos[positions][:, None], self._sin[positions][:, None]
        rows = attention.image_rows
        num_self, num_cross = itertools.count(), itertools.count()
        for layer in self._weights.layers:
            if isinstance(layer, SelfAttentionLayer):
                hidden = self._self_attention_layer(layer, next(num_self), hidden, attention, cos_sin)
            elif rows is not None:
                before = hidden[rows]
                after = self._cross_attention_layer(layer, next(num_cross), before, attention)
                mask = attention.image_row_mask
                hidden[rows] = after if mask is None else after.where(mask, before)
        return hidden

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final RMSNorm and LM head: (tokens, hidden_size) -> (tokens, vocab_size)."""
        return self._weights.lm_head(self._rms_norm(self._weights.norm, hidden))

    def _self_attention_layer(
        self,
        layer: SelfAttentionLayer,
        index: int,
        hidden: torch.Tensor,
        attention: Attention,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Causal self-attention, with RoPE applied to queries and keys, and MLP."""
        heads = layer.qkv(self._rms_norm(layer.norm, hidden)).view(len(hidden), -1, self._head_dim)
        num_rotated = heads.shape[1] - self._num_kv_heads
        _apply_rotary_pos_emb(heads[:, :num_rotated], *cos_sin)
        output = attention.self_attention(index, heads)
        hidden = hidden + layer.output(output.flatten(1))
        return hidden + self._mlp(layer.mlp, hidden)

    def _cross_attention_layer(
        self, layer: CrossAttentionLayer, index: int, hidden: torch.Tensor, attention: Attention
    ) -> torch.Tensor:
        """Gated cross-attention to the vision tokens, and gated MLP."""
        query = layer.query(self._rms_norm(layer.norm, hidden)).view(len(hidden), -1, self._head_dim)
        output = attention.cross_attention(index, self._rms_norm(layer.query_norm, query))
        hidden = hidden + layer.gate * layer.output(output.flatten(1))
        return hidden + layer.mlp_gate * self._mlp(layer.mlp, hidden)

    def _mlp(self, mlp: MLP, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = mlp.gate_up(self._rms_norm(mlp.norm, hidden)).chunk(2, dim=-1)
        return mlp.down(functional.silu(gate) * up)

    def _rms_norm(self, weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden, weight.shape, weight, self._weights.eps)


def _apply_rotary_pos_emb(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotary position embedding in place; `sin` carries the sign of `rotate_half`."""
    first, second = heads.chunk(2, dim=-1)
    swapped = torch.cat((second, first), dim=-1)
    heads.mul_(cos).addcmul_(swapped, sin)

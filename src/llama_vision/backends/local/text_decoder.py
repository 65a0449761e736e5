"""Mllama text decoder over a batch of sequences with a KV cache.

It calls the weights of the model's modules itself, so that each row has its own position, keys and values are written
in place, and grouped-query attention repeats none of them. Tokens without a visible image get zero from both parts of a
cross-attention layer, attention and MLP, as in Meta's reference (llama-models, multimodal/model.py); transformers 5.23
masks the MLP only (its issue 39379).
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from llama_vision.backends.local.attention import Attention, Rope
from llama_vision.backends.local.decoder_weights import (
    MLP,
    CrossAttentionLayer,
    SelfAttentionLayer,
    decoder_weights,
)
from llama_vision.backends.local.device_map import (
    EMBEDDING,
    LM_HEAD,
    DeviceMap,
    PipelineStage,
    pipeline_stages,
)
from llama_vision.backends.local.kernels import TORCH_KERNELS, Kernels
from llama_vision.backends.local.kv_cache import BlockLayout


class TextDecoder:
    """Forward pass of a Mllama's text decoder, one pipeline stage after another."""

    def __init__(self, model: Any, device_map: DeviceMap, layout: BlockLayout, max_model_len: int) -> None:
        self._weights = decoder_weights(model)
        self._stages = pipeline_stages(device_map)
        self._lm_head_device = device_map[LM_HEAD]
        self._head_dim = layout.head_dim
        with torch.inference_mode():
            positions = torch.arange(max_model_len, device=device_map[EMBEDDING])[None]
            reference = torch.zeros((), dtype=model.dtype, device=device_map[EMBEDDING])
            cos, sin = self._weights.rotary_emb(reference, position_ids=positions)
        half = self._head_dim // 2
        self._cos: torch.Tensor = cos[0]
        # The sign of transformers' `rotate_half` is folded into sin.
        self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)
        self._fused_linear = TORCH_KERNELS.fused_linear

    def with_kernels(self, kernels: Kernels) -> "TextDecoder":
        """The same decoder, which computes with other kernels."""
        decoder = copy.copy(self)
        decoder._fused_linear = kernels.fused_linear  # noqa: SLF001 - a copy of this
        return decoder

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, attentions: Sequence[Attention]
    ) -> torch.Tensor:
        """Run the layers over tokens of one or more sequences, (tokens,), at these positions, (tokens,).

        Args:
            input_ids: On the device of the embedding.
            positions: As above.
            attentions: Of each pipeline stage.

        Returns:
            Hidden states before the final RMSNorm, (tokens, hidden_size).
        """
        hidden = self._weights.embedding(input_ids)
        rope = self._cos[positions], self._sin[positions]
        for stage, attention in zip(self._stages, attentions, strict=True):
            hidden = hidden.to(stage.device)
            rope = rope[0].to(stage.device), rope[1].to(stage.device)
            hidden = self._run_stage(stage, hidden, attention, rope)
        return hidden

    def _run_stage(
        self, stage: PipelineStage, hidden: torch.Tensor, attention: Attention, rope: Rope
    ) -> torch.Tensor:
        rows = attention.image_rows
        num_self, num_cross = itertools.count(), itertools.count()
        for layer in self._weights.layers[stage.layers.start : stage.layers.stop]:
            if isinstance(layer, SelfAttentionLayer):
                hidden = self._self_attention_layer(layer, next(num_self), hidden, attention, rope)
            elif rows is not None:
                output = self._cross_attention_layer(layer, next(num_cross), hidden[rows], attention)
                if len(output) == len(hidden):
                    hidden = output
                else:
                    hidden[rows] = output
        return hidden

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final RMSNorm and LM head: (tokens, hidden_size) -> (tokens, vocab_size)."""
        return self._fused_linear(
            self._weights.lm_head,
            hidden.to(self._lm_head_device),
            norm=self._weights.norm,
            eps=self._weights.eps,
        )

    def _self_attention_layer(
        self,
        layer: SelfAttentionLayer,
        index: int,
        hidden: torch.Tensor,
        attention: Attention,
        rope: Rope,
    ) -> torch.Tensor:
        """Causal self-attention, with RoPE applied to queries and keys, and MLP."""
        heads = self._fused_linear(layer.qkv, hidden, norm=layer.norm, eps=self._weights.eps)
        output = attention.self_attention(index, heads.view(len(hidden), -1, self._head_dim), rope)
        hidden = self._fused_linear(layer.output, output.flatten(1), residual=hidden)
        return self._mlp(layer.mlp, hidden)

    def _cross_attention_layer(
        self, layer: CrossAttentionLayer, index: int, hidden: torch.Tensor, attention: Attention
    ) -> torch.Tensor:
        """Gated cross-attention to the vision tokens, and gated MLP."""
        eps, mask = self._weights.eps, attention.image_row_mask
        query = self._fused_linear(layer.query, hidden, norm=layer.norm, eps=eps)
        query = query.view(len(hidden), -1, self._head_dim)
        query = functional.rms_norm(query, layer.query_norm.shape, layer.query_norm, eps)
        output = attention.cross_attention(index, query).flatten(1)
        hidden = self._fused_linear(layer.output, output, gate=layer.gate, mask=mask, residual=hidden)
        return self._mlp(layer.mlp, hidden, gate=layer.mlp_gate, mask=mask)

    def _mlp(
        self,
        mlp: MLP,
        hidden: torch.Tensor,
        *,
        gate: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        output = self._fused_linear(mlp.gate_up, hidden, norm=mlp.norm, eps=self._weights.eps, is_swiglu=True)
        return self._fused_linear(mlp.down, output, gate=gate, mask=mask, residual=hidden)

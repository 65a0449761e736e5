"""Weights of a Mllama's text decoder, with fused projections: one matrix product where transformers has two or three."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from llama_vision.backends.local.quantization import QuantizedLinear


@dataclass(frozen=True, slots=True, eq=False)
class MLP:
    """SwiGLU: `down` of silu(gate) x up.

    Attributes:
        norm: RMSNorm before it, (hidden_size,).
        gate_up: Both projections, hidden_size -> 2 x intermediate_size.
        down: intermediate_size -> hidden_size.
    """

    norm: torch.Tensor
    gate_up: nn.Module
    down: nn.Module


@dataclass(frozen=True, slots=True, eq=False)
class SelfAttentionLayer:
    """A self-attention layer.

    Attributes:
        norm: RMSNorm before it, (hidden_size,).
        qkv: Queries, keys and values, hidden_size -> (num_heads + 2 x num_kv_heads) x head_dim.
        output: Output projection.
        mlp: Its MLP.
    """

    norm: torch.Tensor
    qkv: nn.Module
    output: nn.Module
    mlp: MLP


@dataclass(frozen=True, slots=True, eq=False)
class CrossAttentionLayer:
    """A gated cross-attention layer, without the projections of keys and values, which the vision encoder uses.

    Attributes:
        norm: RMSNorm before it, (hidden_size,).
        query: hidden_size -> num_heads x head_dim.
        query_norm: RMSNorm of each query head, (head_dim,).
        output: Output projection.
        gate: Factor of the attention's output, the tanh of the checkpoint's, (1,).
        mlp: Its MLP.
        mlp_gate: Factor of the MLP's output, as `gate`.
    """

    norm: torch.Tensor
    query: nn.Module
    query_norm: torch.Tensor
    output: nn.Module
    gate: torch.Tensor
    mlp: MLP
    mlp_gate: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DecoderWeights:
    """The whole text decoder.

    Attributes:
        embedding: (vocab_size or more, hidden_size).
        layers: In order.
        norm: RMSNorm after the last one, (hidden_size,).
        lm_head: hidden_size -> vocab_size.
        eps: Of all RMSNorms.
        rotary_emb: Cosines and sines of positions.
    """

    embedding: nn.Module
    layers: tuple[SelfAttentionLayer | CrossAttentionLayer, ...]
    norm: torch.Tensor
    lm_head: nn.Module
    eps: float
    rotary_emb: nn.Module


_decoder_weights: WeakKeyDictionary[Any, DecoderWeights] = WeakKeyDictionary()
_lock = threading.Lock()


def decoder_weights(model: Any) -> DecoderWeights:
    """Get the decoder weights of a Mllama, fused once. Its own layers keep working, on slices of the fused weights."""
    with _lock:
        if model not in _decoder_weights:
            _decoder_weights[model] = _build(model)
        return _decoder_weights[model]


@torch.no_grad()
def _build(model: Any) -> DecoderWeights:
    text = model.model.language_model
    return DecoderWeights(
        embedding=text.embed_tokens,
        layers=tuple(_layer(layer) for layer in text.layers),
        norm=text.norm.weight,
        lm_head=model.lm_head,
        eps=text.norm.variance_epsilon,
        rotary_emb=text.rotary_emb,
    )


def _layer(layer: Any) -> SelfAttentionLayer | CrossAttentionLayer:
    mlp = MLP(
        layer.post_attention_layernorm.weight,
        _fuse([layer.mlp.gate_proj, layer.mlp.up_proj]),
        layer.mlp.down_proj,
    )
    norm = layer.input_layernorm.weight
    if hasattr(layer, "self_attn"):
        attention = layer.self_attn
        qkv = _fuse([attention.q_proj, attention.k_proj, attention.v_proj])
        return SelfAttentionLayer(norm, qkv, attention.o_proj, mlp)
    attention = layer.cross_attn
    return CrossAttentionLayer(
        norm=norm,
        query=attention.q_proj,
        query_norm=attention.q_norm.weight,
        output=attention.o_proj,
        gate=layer.cross_attn_attn_gate.tanh(),
        mlp=mlp,
        mlp_gate=layer.cross_attn_mlp_gate.tanh(),
    )


def _fuse(layers: Sequence[Any]) -> nn.Module:
    """Concatenate linear layers of one kind, and leave them slices of the result."""
    if isinstance(layers[0], QuantizedLinear):
        return layers[0].concatenate(layers)
    weight = torch.cat([layer.weight for layer in layers])
    fused = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    fused.weight = nn.Parameter(weight, requires_grad=False)
    start = 0
    for layer in layers:
        stop = start + len(layer.weight)
        layer.weight = nn.Parameter(weight[start:stop], requires_grad=False)
        start = stop
    return fused

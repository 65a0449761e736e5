"""Forward pass of a Mllama's vision model without an attention mask, which would rule out the fast attention kernels.

Transformers masks pairs of padding only: padding attends to all that is real, and what is real attends to everything. So
with the real tokens first, these are two attentions without a mask.
"""

from typing import Any

import torch
from torch.nn import functional

_PATCH_MULTIPLE = 8
"""The patches of a tile are padded to a multiple of this, as in transformers, since real tokens attend to padding."""


def encode_tiles(
    vision_model: Any, pixel_values: torch.Tensor, aspect_ratio_ids: torch.Tensor, num_tiles: int
) -> torch.Tensor:
    """Encode images of as many tiles each.

    Args:
        vision_model: The `VisionModel`, whose weights it calls.
        pixel_values: (images, max_num_tiles, 3, tile_size, tile_size), zeros for padding tiles.
        aspect_ratio_ids: (images, 1).
        num_tiles: Tiles of each image that are not padding.

    Returns:
        Vision features, (images, num_tiles x num_patches, vision_output_dim).
    """
    hidden, num_patches = _embed(vision_model, pixel_values, aspect_ratio_ids)
    num_images, max_tiles, padded_patches, width = hidden.shape
    order = _real_first(max_tiles, padded_patches, num_tiles, num_patches, hidden.device)
    num_real = num_tiles * num_patches
    hidden = hidden.flatten(1, 2)[:, order]
    intermediate: list[torch.Tensor] = []
    for index, layer in enumerate(vision_model.transformer.layers):
        hidden = _layer(layer, hidden, num_real)
        if index in vision_model.intermediate_layers_indices:
            intermediate.append(hidden[:, :num_real])
    hidden = torch.empty_like(hidden).index_copy_(1, order, vision_model.layernorm_post(hidden))
    hidden = hidden.view(num_images, max_tiles, padded_patches, width)
    hidden = vision_model.post_tile_positional_embedding(hidden, aspect_ratio_ids).flatten(1, 2)[:, order]
    for layer in vision_model.global_transformer.layers:
        hidden = _layer(layer, hidden, num_real)
    return torch.cat((hidden[:, :num_real], torch.stack(intermediate, dim=-1).flatten(2)), dim=-1)


def _embed(
    vision_model: Any, pixel_values: torch.Tensor, aspect_ratio_ids: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Embed patches, padded: (images, max_num_tiles, padded_patches, width); and the number without padding."""
    num_images, max_tiles = pixel_values.shape[:2]
    patches = vision_model.patch_embedding(pixel_values.flatten(0, 1)).flatten(2).transpose(1, 2)
    patches = patches.unflatten(0, (num_images, max_tiles))
    patches = vision_model.pre_tile_positional_embedding(patches, aspect_ratio_ids)
    hidden = vision_model.apply_class_embedding(patches.flatten(0, 1))
    hidden = hidden.view(num_images, max_tiles, *hidden.shape[1:])
    hidden = vision_model.layernorm_pre(vision_model.gated_positional_embedding(hidden, aspect_ratio_ids))
    num_patches: int = hidden.shape[2]
    return functional.pad(hidden, (0, 0, 0, -num_patches % _PATCH_MULTIPLE)), num_patches


def _real_first(
    max_tiles: int, padded_patches: int, num_tiles: int, num_patches: int, device: torch.device
) -> torch.Tensor:
    """Order of an image's tokens: those of real patches of real tiles first."""
    places = torch.arange(max_tiles * padded_patches, device=device).view(max_tiles, padded_patches)
    parts = places[:num_tiles, :num_patches], places[:num_tiles, num_patches:], places[num_tiles:]
    return torch.cat([part.flatten() for part in parts])


def _layer(layer: Any, hidden: torch.Tensor, num_real: int) -> torch.Tensor:
    attention = _attention(layer.self_attn, layer.input_layernorm(hidden), num_real)
    hidden = hidden + (layer.gate_attn.tanh() * attention if layer.is_gated else attention)
    mlp = layer.mlp(layer.post_attention_layernorm(hidden))
    return hidden + (layer.gate_ffn.tanh() * mlp if layer.is_gated else mlp)


def _attention(weights: Any, hidden: torch.Tensor, num_real: int) -> torch.Tensor:
    shape = *hidden.shape[:2], weights.num_heads, weights.head_dim
    query, key, value = (
        projection(hidden).view(shape).transpose(1, 2)
        for projection in (weights.q_proj, weights.k_proj, weights.v_proj)
    )
    output = functional.scaled_dot_product_attention(query[:, :, :num_real], key, value)
    if num_real < hidden.shape[1]:
        real = key[:, :, :num_real], value[:, :, :num_real]
        padding = functional.scaled_dot_product_attention(query[:, :, num_real:], *real)
        output = torch.cat((output, padding), dim=2)
    return weights.o_proj(output.transpose(1, 2).flatten(2))

"""Modules of a Mllama, named as transformers' are, and so as the weights of checkpoints and adapters.

They hold the weights: `text_decoder`, `vision_model` and `vision_encoder` compute the forward passes. transformers' own classes would do as
well, but importing them takes a third of the time of a first answer, and 200 MB, since torch's compiler comes along.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llama_vision.core.errors import LocalModelError

_NUM_EXTRA_EMBEDDINGS = 8
"""Rows that Mllama's embedding has beyond the vocabulary, for `<|image|>`."""

_SILU = ("silu", "swish")
"""What transformers calls it."""


class Mllama(nn.Module):
    """transformers' MllamaForConditionalGeneration, without a forward pass."""

    def __init__(self, config: Any, num_embeddings: int | None = None) -> None:
        """Build it.

        Args:
            config: transformers' MllamaConfig.
            num_embeddings: Rows of the embedding; None is as many as Meta's models have for this vocabulary.
        """
        super().__init__()
        self.config = config
        self.generation_config: Any = None
        self.model = MllamaModel(config, num_embeddings)
        self.lm_head = _linear(config.text_config.hidden_size, config.text_config.vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        """Of what is not quantized."""
        return self.model.vision_model.class_embedding.dtype


class MllamaModel(nn.Module):
    """Vision model, text model, and the projector between them."""

    def __init__(self, config: Any, num_embeddings: int | None) -> None:
        super().__init__()
        text, vision = config.text_config, config.vision_config
        self.vision_model = VisionModel(vision)
        self.language_model = TextModel(text, num_embeddings or text.vocab_size + _NUM_EXTRA_EMBEDDINGS)
        self.multi_modal_projector = nn.Linear(vision.vision_output_dim, text.hidden_size)


class TextModel(nn.Module):
    """Text decoder."""

    def __init__(self, config: Any, num_embeddings: int) -> None:
        super().__init__()
        if config.hidden_act not in _SILU:
            raise LocalModelError(
                f"The text model's hidden_act in config.json is {config.hidden_act!r}: only silu, which all published models "
                "have, is computed here."
            )
        self.embed_tokens = _embedding(num_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, is_cross=layer in config.cross_attention_layers)
            for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)


class RotaryEmbedding(nn.Module):
    """Cosines and sines of positions."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._config = config
        self._frequencies(config.max_position_embeddings)  # refuses here what can't be computed

    def forward(self, like: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Position ids (..., positions) -> two of (..., positions, head_dim), in dtype and on the device of `like`."""
        frequencies, scaling = self._frequencies(int(position_ids.max()) + 1)
        angles = position_ids[..., None].float() * frequencies.to(like.device)
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * scaling).to(like.dtype), (angles.sin() * scaling).to(like.dtype)

    def _frequencies(self, num_positions: int) -> tuple[torch.Tensor, float]:
        """The frequencies, (head_dim / 2,), which are computed, not loaded, and the factor of cosines and sines."""
        config, parameters = self._config, self._config.rope_parameters
        with torch.device("cpu"):
            if parameters["rope_type"] != "default":
                return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, seq_len=num_positions)
            head_dim = config.hidden_size // config.num_attention_heads
            return 1 / parameters["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim), 1.0


class DecoderLayer(nn.Module):
    """Decoder layer, with `self_attn`, or with `cross_attn` and gates."""

    def __init__(self, config: Any, *, is_cross: bool) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = TextMLP(config.hidden_size, config.intermediate_size)
        if is_cross:
            self.cross_attn = TextCrossAttention(config)
            self.cross_attn_attn_gate = nn.Parameter(torch.empty(1))
            self.cross_attn_mlp_gate = nn.Parameter(torch.empty(1))
        else:
            self.self_attn = TextAttention(config)


class TextAttention(nn.Module):
    """Grouped-query attention."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.num_key_value_heads: int = config.num_key_value_heads
        self.head_dim: int = config.hidden_size // config.num_attention_heads
        width, kv_width = config.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        self.q_proj = _linear(config.hidden_size, width)
        self.k_proj = _linear(config.hidden_size, kv_width)
        self.v_proj = _linear(config.hidden_size, kv_width)
        self.o_proj = _linear(width, config.hidden_size)


class TextCrossAttention(TextAttention):
    """Attention to vision tokens, with normalized queries and keys."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)


class TextMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = _linear(hidden_size, intermediate_size)
        self.up_proj = _linear(hidden_size, intermediate_size)
        self.down_proj = _linear(intermediate_size, hidden_size)


class RMSNorm(nn.Module):
    """RMSNorm; rounded to the dtype before it is multiplied by the weight, as in Meta's reference, unlike torch's."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.variance_epsilon = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., size) -> the same."""
        exact = hidden.float()
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (exact * scale).to(hidden.dtype)


class VisionModel(nn.Module):
    """Vision encoder of two transformers, the second of which has gates."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, patch_size = config.hidden_size, config.patch_size
        self.num_patches: int = (config.image_size // patch_size) ** 2 + 1
        self.intermediate_layers_indices: list[int] = config.intermediate_layers_indices
        self.patch_embedding = nn.Conv2d(
            config.num_channels, width, patch_size, stride=patch_size, bias=False
        )
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.gated_positional_embedding = PositionEmbedding(config, self.num_patches)
        self.pre_tile_positional_embedding = AspectRatioEmbedding(config)
        self.post_tile_positional_embedding = AspectRatioEmbedding(config)
        self.layernorm_pre = nn.LayerNorm(width)
        self.layernorm_post = nn.LayerNorm(width)
        self.transformer = VisionTransformer(config, config.num_hidden_layers, is_gated=False)
        self.global_transformer = VisionTransformer(config, config.num_global_layers, is_gated=True)

    def apply_class_embedding(self, patches: torch.Tensor) -> torch.Tensor:
        """Put the class embedding before the patches: (tiles, patches, width) -> (tiles, 1 + patches, width)."""
        return torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], dim=1)


class PositionEmbedding(nn.Module):
    """Embedding of a patch's position in its tile, and, by the image's aspect ratio, in the image."""

    def __init__(self, config: Any, num_patches: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(1))
        self.embedding = nn.Parameter(torch.empty(num_patches, config.hidden_size))
        size = config.max_num_tiles * num_patches * config.hidden_size
        self.tile_embedding = _embedding(config.max_aspect_ratio_id + 1, size)

    def forward(self, hidden: torch.Tensor, aspect_ratio_ids: torch.Tensor) -> torch.Tensor:
        """(images, max_num_tiles, num_patches, width), aspect ratio ids (images, 1) -> the shape of hidden."""
        gate = self.gate.tanh()
        hidden = hidden + (1 - gate) * self.embedding
        return hidden + gate * self.tile_embedding(aspect_ratio_ids).view(hidden.shape)


class AspectRatioEmbedding(nn.Module):
    """Embedding of a tile's position in the image, by the image's aspect ratio."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(1))
        size = config.max_num_tiles * config.hidden_size
        self.embedding = _embedding(config.max_aspect_ratio_id + 1, size)

    def forward(self, hidden: torch.Tensor, aspect_ratio_ids: torch.Tensor) -> torch.Tensor:
        """(images, max_num_tiles, patches, width), aspect ratio ids (images, 1) -> the shape of hidden."""
        num_images, max_tiles, _, width = hidden.shape
        embedding = self.embedding(aspect_ratio_ids).view(num_images, max_tiles, 1, width)
        return hidden + embedding * self.gate.tanh()


class VisionTransformer(nn.Module):
    """Encoder layers."""

    def __init__(self, config: Any, num_layers: int, *, is_gated: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config, is_gated=is_gated) for _ in range(num_layers))


class VisionLayer(nn.Module):
    """Encoder layer."""

    def __init__(self, config: Any, *, is_gated: bool) -> None:
        super().__init__()
        self.self_attn = VisionAttention(config.hidden_size, config.attention_heads)
        self.mlp = VisionMLP(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.is_gated = is_gated
        if is_gated:
            self.gate_attn = nn.Parameter(torch.empty(1))
            self.gate_ffn = nn.Parameter(torch.empty(1))


class VisionAttention(nn.Module):
    """Multi-head attention."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, hidden_size // num_heads
        width = self.num_heads * self.head_dim
        self.q_proj = _linear(hidden_size, width)
        self.k_proj = _linear(hidden_size, width)
        self.v_proj = _linear(hidden_size, width)
        self.o_proj = _linear(width, hidden_size)


class VisionMLP(nn.Module):
    """Two layers with an activation between them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation_fn = _activation(config.hidden_act)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden_size) -> the same."""
        return self.fc2(self.activation_fn(self.fc1(hidden)))


def _linear(in_features: int, out_features: int) -> nn.Linear:
    return nn.Linear(in_features, out_features, bias=False)


def _embedding(num_embeddings: int, size: int) -> nn.Embedding:
    # Initializing one on `meta`, as `nn.Embedding` does, imports torch's compiler.
    embedding: Any = nn.Embedding  # not annotated in full
    return embedding.from_pretrained(torch.empty(num_embeddings, size))


def _activation(name: str) -> Any:
    if name == "gelu":  # the published models'
        return functional.gelu
    from transformers.activations import ACT2FN  # noqa: PLC0415 - slow to import

    activations: Any = ACT2FN
    if name not in activations:
        raise LocalModelError(
            f"The vision model's hidden_act in config.json is {name!r}, which transformers does not know."
        )
    return activations[name]

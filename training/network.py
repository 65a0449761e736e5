"""The network in training: weight initialisation, forward passes, auxiliary patch classifiers.

Hugging Face's modules hold the weights. The text decoder's forward pass is written out here, because theirs lets tokens before an
image attend to it (transformers issue 39379), and the model has to be trained without that, as Meta's was.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import MllamaConfig, MllamaForConditionalGeneration

from training.canvas import BAR, CHARACTERS, COLORS, FIRST_CHARACTER, FROM_LEFT

_FIRST_LETTER = 1 + 8 * (BAR + 1)
_LABELS = {
    "shape": BAR + 2,
    "color": len(COLORS) + 1,
    "character": len(CHARACTERS) + 1,
    "place": FROM_LEFT + 6,
    "middle": _FIRST_LETTER + len(CHARACTERS),
}
"""Classes of each patch classifier; class 0 is "none".

`middle` is the object whose centre is in the patch: there are as many as objects to be counted, whatever their size.
"""


def init_network(config: MllamaConfig) -> Any:
    """Make a network with an initialisation that trains.

    Hugging Face's own is for trained weights: gates are 0, every matrix has the same scale whatever its width, and position
    embeddings vanish beside the patch embeddings.
    """
    network = MllamaForConditionalGeneration(config)
    network.set_attn_implementation("eager")  # on a CPU its backward pass takes half the time of sdpa's
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "gate" in name and weights.numel() == 1:
                weights.fill_(1.0)
            elif name.endswith("embed_tokens.weight"):
                weights.normal_(std=0.3)
            elif weights.dim() == 2 and "embed" not in name:
                last = name.endswith(("o_proj.weight", "down_proj.weight", "fc2.weight"))
                weights.normal_(std=(0.32 if last else 0.8) / math.sqrt(weights.shape[1]))
        network.lm_head.weight.mul_(0.3)
        vision = network.model.vision_model
        vision.patch_embedding.weight.normal_(std=1.5 / math.sqrt(3 * vision.patch_size**2))
        _init_position_embedding(vision.gated_positional_embedding.embedding)
    return network


def _init_position_embedding(embedding: torch.Tensor) -> None:
    """Initialise with 2D sinusoids, at the scale of the patch embeddings."""
    positions, width = embedding.shape
    side = math.isqrt(positions - 1)
    frequencies = 1.5 / 20 ** (torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    waves = [
        turn(part.reshape(-1, 1) * frequencies) for part in (rows, columns) for turn in (torch.sin, torch.cos)
    ]
    embedding.zero_()
    embedding[1:] = 0.5 * torch.cat(waves, 1)


def encode_images(network: Any, tiles: torch.Tensor) -> torch.Tensor:
    """Run the vision encoder on single-tile images: (images, 3, side, side), 0 to 255, to (images, 1 + patches, width)."""
    count = len(tiles)
    ones = torch.ones(count, 1, dtype=torch.long)
    pixels = (tiles.float() / 127.5 - 1)[:, None, None]
    encoded = network.model.vision_model(
        pixel_values=pixels, aspect_ratio_ids=ones, aspect_ratio_mask=ones[:, :, None]
    )
    return encoded.last_hidden_state.flatten(1, 3)


def decode_text(
    model: Any, ids: torch.Tensor, states: torch.Tensor | None, image_mask: torch.Tensor | None
) -> torch.Tensor:
    """Run the text decoder.

    Args:
        model: The language model.
        ids: Token ids, (batch, seq_len).
        states: Projected vision states of each row's image, (batch, 1 + patches, hidden_size), or None without images.
        image_mask: 1 for tokens that attend to their row's image, else 0, (batch, seq_len, 1).

    Returns:
        Final hidden states, (batch, seq_len, hidden_size).
    """
    seq_len = ids.shape[1]
    hidden = model.embed_tokens(ids)
    rotary = model.rotary_emb(hidden, torch.arange(seq_len)[None])
    causal_mask = torch.full((seq_len, seq_len), torch.finfo(torch.float32).min).triu(1)[None, None]
    for number, layer in enumerate(model.layers):
        if number not in model.cross_attention_layers:
            hidden = layer(hidden, attention_mask=causal_mask, position_embeddings=rotary)
        elif states is not None:
            output = layer.cross_attn(layer.input_layernorm(hidden), cross_attention_states=states)[0]
            hidden = hidden + layer.cross_attn_attn_gate.tanh() * output * image_mask
            output = layer.mlp(layer.post_attention_layernorm(hidden))
            hidden = hidden + layer.cross_attn_mlp_gate.tanh() * output * image_mask
    return model.norm(hidden)


class PatchClassifiers(nn.ModuleDict):
    """Auxiliary classifiers over the patches' states; discarded after training.

    Trained on replies alone, the vision encoder stays a bag of colours: it learns neither shapes, positions nor letters.
    """

    def __init__(self, width: int) -> None:
        super().__init__({name: nn.Linear(width, classes) for name, classes in _LABELS.items()})

    def loss(
        self, states: torch.Tensor, labels: torch.Tensor, places: torch.Tensor, middles: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Compute the classification loss.

        Args:
            states: Of the vision encoder, (images, 1 + patches, width).
            labels: (images, patches), as `Drawing.labels` has them.
            places: (images, patches), as `Drawing.places` has them.
            middles: (images, patches), as `Batch.middles`.

        Returns:
            The loss, and the accuracy of each classifier over patches whose class is not 0.
        """
        is_shape = (labels > 0) & (labels < FIRST_CHARACTER)
        truths = {
            "shape": torch.where(is_shape, (labels - 1) // 8 + 1, 0),
            "color": torch.where(is_shape, (labels - 1) % 8 + 1, 0),
            "character": torch.where(labels >= FIRST_CHARACTER, labels - FIRST_CHARACTER + 1, 0),
            "place": places,
            "middle": torch.where(
                middles < FIRST_CHARACTER, middles, middles - FIRST_CHARACTER + _FIRST_LETTER
            ),
        }
        total, right = torch.zeros(()), dict[str, float]()
        for name, truth in truths.items():
            logits = self[name](states[:, 1 : labels.shape[1] + 1]).float()
            weights = torch.tensor([0.3] + [1.0] * (_LABELS[name] - 1))
            total = total + functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), weight=weights)
            there = truth > 0
            hits = ((logits.argmax(-1) == truth) & there).sum().item()
            right[name] = hits / max(1, int(there.sum()))
        return total, right

"""The network while it learns: its starting values, its passes, and what its patches are asked beside the answers.

Hugging Face's modules hold the weights. The pass over the words is written out here, because theirs lets words before a picture
see it (transformers issue 39379), and the model has to learn without that, as Meta's did.
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
"""What each patch is asked, and how many answers there are; the first is: nothing of the kind.

`middle` is what has its middle in the patch: what is to be counted has as many of them as there are things, of whatever size.
"""


def fresh(config: MllamaConfig) -> Any:
    """Make a network with starting values that can learn.

    Hugging Face's own are for trained weights: gates shut, every matrix drawn alike whatever its width, and positions so faint
    beside the patches that they stay unseen.
    """
    network = MllamaForConditionalGeneration(config)
    network.set_attn_implementation("eager")  # on a processor its backward pass takes half the time of sdpa's
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
        _place(vision.gated_positional_embedding.embedding)
    return network


def _place(embedding: torch.Tensor) -> None:
    """Begin with waves over rows and columns, as strong as the patches themselves."""
    places, width = embedding.shape
    side = math.isqrt(places - 1)
    speeds = 1.5 / 20 ** (torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    waves = [
        turn(part.reshape(-1, 1) * speeds) for part in (rows, columns) for turn in (torch.sin, torch.cos)
    ]
    embedding.zero_()
    embedding[1:] = 0.5 * torch.cat(waves, 1)


def seen_images(network: Any, tiles: torch.Tensor) -> torch.Tensor:
    """Look at images of one tile: (images, 3, side, side), 0 to 255, to (images, 1 + patches, width)."""
    count = len(tiles)
    ones = torch.ones(count, 1, dtype=torch.long)
    pixels = (tiles.float() / 127.5 - 1)[:, None, None]
    seen = network.model.vision_model(
        pixel_values=pixels, aspect_ratio_ids=ones, aspect_ratio_mask=ones[:, :, None]
    )
    return seen.last_hidden_state.flatten(1, 3)


def read_words(
    model: Any, ids: torch.Tensor, states: torch.Tensor | None, sees: torch.Tensor | None
) -> torch.Tensor:
    """Read words.

    Args:
        model: The language model.
        ids: (rows, words).
        states: What each row's image shows, (rows, 1 + patches, width), or None without images.
        sees: Whether a word sees its row's image, (rows, words, 1), 0 or 1.

    Returns:
        The last layer's states, (rows, words, width).

    """
    words = ids.shape[1]
    hidden = model.embed_tokens(ids)
    turns = model.rotary_emb(hidden, torch.arange(words)[None])
    later = torch.full((words, words), torch.finfo(torch.float32).min).triu(1)[None, None]
    for number, layer in enumerate(model.layers):
        if number not in model.cross_attention_layers:
            hidden = layer(hidden, attention_mask=later, position_embeddings=turns)
        elif states is not None:
            found = layer.cross_attn(layer.input_layernorm(hidden), cross_attention_states=states)[0]
            hidden = hidden + layer.cross_attn_attn_gate.tanh() * found * sees
            found = layer.mlp(layer.post_attention_layernorm(hidden))
            hidden = hidden + layer.cross_attn_mlp_gate.tanh() * found * sees
    return model.norm(hidden)


class PatchQuestions(nn.ModuleDict):
    """Asks every patch what it shows; thrown away after training.

    Taught by answers alone, the half that sees stays a bag of colours: it learns neither shapes, places nor letters.
    """

    def __init__(self, width: int) -> None:
        super().__init__({name: nn.Linear(width, answers) for name, answers in _LABELS.items()})

    def loss(
        self, seen: torch.Tensor, labels: torch.Tensor, places: torch.Tensor, middles: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Compare what patches answer with the truth.

        Args:
            seen: (images, 1 + patches, width).
            labels: (images, patches), as `Drawing.labels` has them.
            places: (images, patches), as `Drawing.places` has them.
            middles: (images, patches), as `Batch.middles`.

        Returns:
            The loss, and for each question the share of right answers where there is something.

        """
        shown = (labels > 0) & (labels < FIRST_CHARACTER)
        truths = {
            "shape": torch.where(shown, (labels - 1) // 8 + 1, 0),
            "color": torch.where(shown, (labels - 1) % 8 + 1, 0),
            "character": torch.where(labels >= FIRST_CHARACTER, labels - FIRST_CHARACTER + 1, 0),
            "place": places,
            "middle": torch.where(
                middles < FIRST_CHARACTER, middles, middles - FIRST_CHARACTER + _FIRST_LETTER
            ),
        }
        total, right = torch.zeros(()), dict[str, float]()
        for name, truth in truths.items():
            answers = self[name](seen[:, 1 : labels.shape[1] + 1]).float()
            weights = torch.tensor([0.3] + [1.0] * (_LABELS[name] - 1))
            total = total + functional.cross_entropy(answers.flatten(0, 1), truth.flatten(), weight=weights)
            there = truth > 0
            hits = ((answers.argmax(-1) == truth) & there).sum().item()
            right[name] = hits / max(1, int(there.sum()))
        return total, right

"""The half of the network that writes, over many rows at once.

It takes the modules that transformers has loaded by their names, and calls their weights itself: so each row stands at a
position of its own, keys and values are written where they stay, and nothing is repeated for the heads that share them.
Words that see no picture take nothing from one, after attention and after the MLP, as in Meta's reference
(llama-models, multimodal/model.py); transformers 5.23 does the second only (its issue 39379).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from llama_vision.backends.local.slots import Slots, Store


@dataclass(frozen=True, slots=True)
class Sight:
    """What the first rows of a pass see of their pictures.

    Attributes:
        rows: How many of the rows have pictures; they come first.
        keys: For each layer in which words look at pictures, (rows, heads, columns, size).
        values: The same.
        veil: 0 where a word sees a column, minus infinity where not (rows, 1, words or 1, columns); None where all do.
        open: 1 for words that see anything, 0 for others (rows, words, 1); None means that all do.

    """

    rows: int
    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]
    veil: torch.Tensor | None = None
    open: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """One way through the layers.

    Attributes:
        tokens: What goes in (rows, words).
        positions: Where each stands in its text (rows, words).
        places: Which rows of the slots they belong to (rows, 1).
        reach: How many columns of the slots are looked at.
        veil: 0 where a word sees a column, minus infinity where not (rows or 1, 1, words, reach); None where all do.
        sight: What they see of pictures, where any row does.
        first: The first of the places, where the others follow one by one, so that the slots need not be copied to be read.

    """

    tokens: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    reach: int
    veil: torch.Tensor | None
    sight: Sight | None
    first: int | None


class Decoder:
    """The text half of a Mllama."""

    __slots__ = ("_cos", "_crossing", "_gates", "_head_size", "_lm_head", "_scale", "_sin", "_text")

    def __init__(self, network: Any, max_len: int) -> None:
        config = network.config.text_config
        self._text = network.model.language_model
        self._lm_head = network.lm_head
        self._crossing = frozenset[int](config.cross_attention_layers)
        self._head_size = config.hidden_size // config.num_attention_heads
        self._scale = self._head_size**-0.5
        with torch.inference_mode():
            self._gates: dict[int, tuple[torch.Tensor, torch.Tensor]] = {
                layer: (module.cross_attn_attn_gate.tanh(), module.cross_attn_mlp_gate.tanh())
                for layer, module in enumerate(self._text.layers)
                if layer in self._crossing
            }
            positions = torch.arange(max_len, device=network.device)[None]
            like = torch.zeros((), dtype=network.dtype, device=network.device)
            cos, sin = self._text.rotary_emb(like, position_ids=positions)
        half = self._head_size // 2
        self._cos: torch.Tensor = cos[0]
        # Half of a rotation changes its sign; that is done here once.
        self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)

    def hidden(self, step: Pass, slots: Slots) -> torch.Tensor:
        """Go through the layers, and write the keys and values of the words into the slots.

        Args:
            step: What goes in.
            slots: What is remembered.

        Returns:
            What stands behind the last layer (rows, words, width), not yet normalised.

        """
        hidden = self._text.embed_tokens(step.tokens)
        rotation = self._cos[step.positions][:, :, None], self._sin[step.positions][:, :, None]
        for number, layer in enumerate(self._text.layers):
            if number not in self._crossing:
                hidden = hidden + self._own(layer, number, hidden, step, slots.words, rotation)
                hidden = hidden + layer.mlp(_normed(layer.post_attention_layernorm, hidden))
            elif step.sight is not None:
                seeing = self._crossed(layer, number, hidden[: step.sight.rows], step.sight)
                rest = hidden[step.sight.rows :]
                hidden = torch.cat((seeing, rest)) if len(rest) else seeing
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score what may come next: (rows, width) -> (rows, vocabulary)."""
        return self._lm_head(_normed(self._text.norm, hidden))

    def _own(
        self,
        layer: Any,
        number: int,
        hidden: torch.Tensor,
        step: Pass,
        store: Store,
        rotation: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Let words look at the words before them."""
        attention = layer.self_attn
        normed = _normed(layer.input_layernorm, hidden)
        query, key = self._heads(attention.q_proj(normed)), self._heads(attention.k_proj(normed))
        turned = _rotated(torch.cat((query, key), dim=2), *rotation)
        query, key = turned[:, :, : query.shape[2]], turned[:, :, query.shape[2] :]
        keys, values = store.keys[number], store.values[number]
        keys[step.places, :, step.positions] = key
        values[step.places, :, step.positions] = self._heads(attention.v_proj(normed))
        rows = step.places[:, 0] if step.first is None else slice(step.first, step.first + len(step.tokens))
        seen = self._attended(query, keys[rows, :, : step.reach], values[rows, :, : step.reach], step.veil)
        return attention.o_proj(seen)

    def _crossed(self, layer: Any, number: int, hidden: torch.Tensor, sight: Sight) -> torch.Tensor:
        """Let words look at pictures."""
        attention, (attention_gate, mlp_gate) = layer.cross_attn, self._gates[number]
        query = _normed(
            attention.q_norm, self._heads(attention.q_proj(_normed(layer.input_layernorm, hidden)))
        )
        seen = attention.o_proj(self._attended(query, sight.keys[number], sight.values[number], sight.veil))
        hidden = hidden + attention_gate * (seen if sight.open is None else sight.open * seen)
        thought = layer.mlp(_normed(layer.post_attention_layernorm, hidden))
        return hidden + mlp_gate * (thought if sight.open is None else sight.open * thought)

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """Cut (rows, words, width) into (rows, words, heads, size)."""
        return projected.view(*projected.shape[:2], -1, self._head_size)

    def _attended(
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
        rows, words, heads, size = query.shape
        kept = keys.shape[1]
        sharing = heads // kept
        if words == 1:
            packed = query.view(rows, kept, sharing, size)
        else:
            packed = query.view(rows, words, kept, sharing, size).permute(0, 2, 3, 1, 4)
            packed = packed.reshape(rows, kept, sharing * words, size)
            veil = veil if veil is None else veil.repeat(1, 1, sharing, 1)
        seen = functional.scaled_dot_product_attention(
            packed, keys, values, attn_mask=veil, scale=self._scale
        )
        if words > 1:
            seen = seen.view(rows, kept, sharing, words, size).permute(0, 3, 1, 2, 4)
        return seen.reshape(rows, words, heads * size)


def _normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn pairs of numbers by their position; `sin` has the signs in it."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((second, first), dim=-1) * sin

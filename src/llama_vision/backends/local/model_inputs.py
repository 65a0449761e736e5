"""What goes through the layers: pieces of prompts at first, then one token of every answer at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llama_vision.backends.local.input_processor import ImageSpan, TokenizedPrompt
from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.text_decoder import CrossAttentionInputs, ForwardBatch
from llama_vision.backends.local.vision_encoder import CrossAttentionKV


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Words of a prompt that are read at once.

    Attributes:
        prompt: The prompt; its images that these words see are seen.
        cache_row: Its row of the slots, where the words before these stand.
        start: The first of the words.
        stop: The first that is not read.

    """

    prompt: TokenizedPrompt
    cache_row: int
    start: int
    stop: int

    @property
    def visible_image_spans(self) -> list[ImageSpan]:
        """The images that any of the words sees."""
        return [one for one in self.prompt.image_spans if one.start < self.stop and one.end > self.start]


def prepare_prefill(pieces: Sequence[PrefillChunk], max_len: int, reference: torch.Tensor) -> ForwardBatch:
    """Read pieces of prompts together.

    Args:
        pieces: Those that see images first. Shorter ones are filled up at the end, where what is written into the slots
            is overwritten before anyone may look at it.
        max_len: The most words of an answer with its prompt.
        reference: A tensor of the right device and precision.

    Returns:
        The pass.

    """
    device = reference.device
    max_chunk_len = max(piece.stop - piece.start for piece in pieces)
    reach = min(max(piece.start for piece in pieces) + max_chunk_len, max_len)
    texts = [piece.prompt.token_ids[piece.start : piece.stop] for piece in pieces]
    tokens = torch.tensor([text + [0] * (max_chunk_len - len(text)) for text in texts], device=device)
    starts = torch.tensor([[piece.start] for piece in pieces], device=device)
    # No prompt reaches as far as the last position: an answer has to have room.
    positions = (starts + torch.arange(max_chunk_len, device=device)).clamp(max=max_len - 1)
    query_positions = positions if len({piece.start for piece in pieces}) > 1 else positions[:1]
    places = [piece.cache_row for piece in pieces]
    is_contiguous = places == [*range(places[0], places[0] + len(places))]
    return ForwardBatch(
        input_ids=tokens,
        positions=positions,
        cache_rows=torch.tensor(places, device=device)[:, None],
        kv_len=reach,
        attention_mask=_additive_mask(
            torch.arange(reach, device=device) <= query_positions[:, None, :, None], reference
        ),
        cross_attention=_prefill_cross_attention(
            [piece for piece in pieces if piece.visible_image_spans], max_chunk_len, reference
        ),
        first_row=places[0] if is_contiguous else None,
    )


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """The shapes of a step. Steps of equal shapes do the same work on other numbers.

    Attributes:
        num_seqs: How many rows.
        kv_len: How many columns of words they look at.
        num_image_seqs: How many of them look at images; they come first.
        cross_kv_len: At how many columns of images they look.
        needs_mask: Whether some look at fewer words than others.
        needs_cross_mask: Whether some see fewer columns of images than others.

    """

    num_seqs: int
    kv_len: int
    num_image_seqs: int
    cross_kv_len: int
    needs_mask: bool
    needs_cross_mask: bool


def prepare_decode(decode_inputs: torch.Tensor, shape: DecodeShape, slots: KVCache) -> ForwardBatch:
    """Let every answer go on by a token.

    Args:
        decode_inputs: For each row its token, its position, and how many columns of images it sees (rows, 3).
        shape: The shapes.
        slots: What is remembered.

    Returns:
        The pass; no number of it has to be known on this side of the device.

    """
    tokens, positions, cross_kv_lens = (
        decode_inputs[: shape.num_seqs, column : column + 1] for column in range(3)
    )
    like = next(iter(slots.self_attention.keys.values()))
    veil = None
    if shape.needs_mask:
        veil = _additive_mask(torch.arange(shape.kv_len, device=decode_inputs.device) <= positions, like)[
            :, None, None
        ]
    return ForwardBatch(
        input_ids=tokens,
        positions=positions,
        cache_rows=torch.arange(shape.num_seqs, device=decode_inputs.device)[:, None],
        kv_len=shape.kv_len,
        attention_mask=veil,
        cross_attention=_decode_cross_attention(cross_kv_lens[: shape.num_image_seqs], shape, slots)
        if shape.num_image_seqs
        else None,
        first_row=0,
    )


def _decode_cross_attention(widths: torch.Tensor, shape: DecodeShape, slots: KVCache) -> CrossAttentionInputs:
    store = slots.cross_attention
    keys = {layer: one[: shape.num_image_seqs, :, : shape.cross_kv_len] for layer, one in store.keys.items()}
    values = {
        layer: one[: shape.num_image_seqs, :, : shape.cross_kv_len] for layer, one in store.values.items()
    }
    if not shape.needs_cross_mask:
        return CrossAttentionInputs(shape.num_image_seqs, keys, values)
    like = next(iter(keys.values()))
    # Whoever sees nothing looks at one column, since nothing can't be averaged, and takes nothing from it.
    seen = torch.arange(shape.cross_kv_len, device=widths.device) < widths.clamp(min=1)
    return CrossAttentionInputs(
        shape.num_image_seqs,
        keys,
        values,
        _additive_mask(seen, like)[:, None, None],
        (widths > 0).to(like)[..., None],
    )


def _prefill_cross_attention(
    pieces: Sequence[PrefillChunk], longest: int, like: torch.Tensor
) -> CrossAttentionInputs | None:
    """Put the images of each piece beside one another, and work out which words see them."""
    if not pieces:
        return None
    images = [_encoded_images(piece) for piece in pieces]
    columns = max(sum(seen.num_vision_tokens for _, seen in row) for row in images)
    visible = torch.zeros(len(pieces), 1, longest, columns, dtype=torch.bool, device=like.device)
    keys: dict[int, torch.Tensor] = {}
    values: dict[int, torch.Tensor] = {}
    for ours, theirs in ((keys, images[0][0][1].keys), (values, images[0][0][1].values)):
        for layer, one in theirs.items():
            ours[layer] = like.new_zeros(len(pieces), one.shape[0], columns, one.shape[2])
    for row, piece in enumerate(pieces):
        end = 0
        for glimpse, seen in images[row]:
            begin, end = end, end + seen.num_vision_tokens
            first = max(glimpse.start - piece.start, 0)
            visible[row, 0, first : glimpse.end - piece.start, begin:end] = True
            for ours, theirs in ((keys, seen.keys), (values, seen.values)):
                for layer, one in theirs.items():
                    ours[layer][row, :, begin:end] = one
    sees = visible.any(-1, keepdim=True)
    return CrossAttentionInputs(
        len(pieces), keys, values, _additive_mask(visible | ~sees, like), sees[:, 0].to(like)
    )


def _encoded_images(piece: PrefillChunk) -> list[tuple[ImageSpan, CrossAttentionKV]]:
    return [
        (glimpse, seen) for glimpse in piece.visible_image_spans if (seen := glimpse.image.kv) is not None
    ]


def _additive_mask(visible: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros(()).masked_fill(~visible, float("-inf"))

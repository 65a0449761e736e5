"""Model inputs: the tensors of a prefill and of a decode forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.sequence import ImageSpan, TokenizedPrompt
from llama_vision.backends.local.text_decoder import CrossAttentionInputs, ForwardBatch


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Prompt tokens `start` to `stop`, exclusive, which one forward pass computes; `cache_row` holds those before."""

    prompt: TokenizedPrompt
    cache_row: int
    start: int
    stop: int

    @property
    def visible_image_spans(self) -> list[ImageSpan]:
        """The images that any of the tokens attends to."""
        return [span for span in self.prompt.image_spans if span.start < self.stop and span.end > self.start]


def prepare_prefill(
    chunks: Sequence[PrefillChunk], max_model_len: int, reference: torch.Tensor
) -> ForwardBatch:
    """Build the inputs of a prefill forward pass.

    Args:
        chunks: Those with visible images first. Shorter ones are right-padded; the keys and values of padding are
            overwritten before any token attends to them.
        max_model_len: Upper bound of prompt and output tokens together.
        reference: A tensor of the model's device and dtype.
    """
    device = reference.device
    max_chunk_len = max(chunk.stop - chunk.start for chunk in chunks)
    kv_len = min(max(chunk.start for chunk in chunks) + max_chunk_len, max_model_len)
    token_ids = [chunk.prompt.token_ids[chunk.start : chunk.stop] for chunk in chunks]
    input_ids = torch.tensor([ids + [0] * (max_chunk_len - len(ids)) for ids in token_ids], device=device)
    starts = torch.tensor([[chunk.start] for chunk in chunks], device=device)
    # Only padding is clamped: the last position is never a prompt token's, since an output token has to fit.
    positions = (starts + torch.arange(max_chunk_len, device=device)).clamp(max=max_model_len - 1)
    query_positions = positions if len({chunk.start for chunk in chunks}) > 1 else positions[:1]
    rows = [chunk.cache_row for chunk in chunks]
    is_contiguous = rows == [*range(rows[0], rows[0] + len(rows))]
    visible = torch.arange(kv_len, device=device) <= query_positions[:, None, :, None]
    with_images = [chunk for chunk in chunks if chunk.visible_image_spans]
    return ForwardBatch(
        input_ids=input_ids,
        positions=positions,
        cache_rows=torch.tensor(rows, device=device)[:, None],
        kv_len=kv_len,
        attention_mask=_additive_mask(visible, reference),
        cross_attention=_prefill_cross_attention(with_images, max_chunk_len, reference),
        first_row=rows[0] if is_contiguous else None,
    )


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """Shapes of a decode step. Steps of equal shape run the same kernels, so they can share a CUDA graph.

    Attributes:
        num_seqs: Batch size.
        kv_len: Longest sequence, the new token included.
        num_image_seqs: Sequences with images; they come first.
        cross_kv_len: Largest number of vision tokens.
        needs_mask: Whether sequence lengths differ.
        needs_cross_mask: Whether numbers of vision tokens differ.
    """

    num_seqs: int
    kv_len: int
    num_image_seqs: int
    cross_kv_len: int
    needs_mask: bool
    needs_cross_mask: bool


def prepare_decode(decode_inputs: torch.Tensor, shape: DecodeShape, kv_cache: KVCache) -> ForwardBatch:
    """Build the inputs of a decode forward pass, without a read back from the device.

    `decode_inputs` are token id, position and number of vision tokens of each sequence, (batch or more, 3).
    """
    input_ids, positions, cross_kv_lens = decode_inputs[: shape.num_seqs].chunk(3, dim=1)
    attention_mask = None
    if shape.needs_mask:
        reference = next(iter(kv_cache.self_attention.keys.values()))
        visible = torch.arange(shape.kv_len, device=decode_inputs.device) <= positions
        attention_mask = _additive_mask(visible, reference)[:, None, None]
    return ForwardBatch(
        input_ids=input_ids,
        positions=positions,
        cache_rows=torch.arange(shape.num_seqs, device=decode_inputs.device)[:, None],
        kv_len=shape.kv_len,
        attention_mask=attention_mask,
        cross_attention=_decode_cross_attention(cross_kv_lens[: shape.num_image_seqs], shape, kv_cache)
        if shape.num_image_seqs
        else None,
        first_row=0,
    )


def _decode_cross_attention(
    cross_kv_lens: torch.Tensor, shape: DecodeShape, kv_cache: KVCache
) -> CrossAttentionInputs:
    keys, values = (
        {layer: tensor[: shape.num_image_seqs, :, : shape.cross_kv_len] for layer, tensor in tensors.items()}
        for tensors in (kv_cache.cross_attention.keys, kv_cache.cross_attention.values)
    )
    if not shape.needs_cross_mask:
        return CrossAttentionInputs(shape.num_image_seqs, keys, values)
    reference = next(iter(keys.values()))
    # A softmax over nothing is NaN: rows without images attend to one vision token, and the row mask drops it.
    visible = torch.arange(shape.cross_kv_len, device=cross_kv_lens.device) < cross_kv_lens.clamp(min=1)
    attention_mask = _additive_mask(visible, reference)[:, None, None]
    row_mask = (cross_kv_lens > 0).to(reference)[..., None]
    return CrossAttentionInputs(shape.num_image_seqs, keys, values, attention_mask, row_mask)


def _prefill_cross_attention(
    chunks: Sequence[PrefillChunk], max_chunk_len: int, reference: torch.Tensor
) -> CrossAttentionInputs | None:
    """Concatenate the vision keys and values of each chunk, and build the cross-attention mask."""
    if not chunks:
        return None
    images = [
        [(span, kv) for span in chunk.visible_image_spans if (kv := span.image.kv) is not None]
        for chunk in chunks
    ]
    cross_kv_len = max(sum(kv.num_vision_tokens for _, kv in row) for row in images)
    visible = torch.zeros(
        len(chunks), 1, max_chunk_len, cross_kv_len, dtype=torch.bool, device=reference.device
    )
    first_kv = images[0][0][1]
    keys, values = (
        {
            layer: reference.new_zeros(len(chunks), tensor.shape[0], cross_kv_len, tensor.shape[2])
            for layer, tensor in tensors.items()
        }
        for tensors in (first_kv.keys, first_kv.values)
    )
    for row, chunk in enumerate(chunks):
        end = 0
        for span, kv in images[row]:
            start, end = end, end + kv.num_vision_tokens
            visible[row, 0, max(span.start - chunk.start, 0) : span.end - chunk.start, start:end] = True
            for batch_tensors, image_tensors in ((keys, kv.keys), (values, kv.values)):
                for layer, tensor in image_tensors.items():
                    batch_tensors[layer][row, :, start:end] = tensor
    row_mask = visible.any(-1, keepdim=True)
    attention_mask = _additive_mask(visible | ~row_mask, reference)
    return CrossAttentionInputs(len(chunks), keys, values, attention_mask, row_mask[:, 0].to(reference))


def _additive_mask(visible: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """0 where visible, else minus infinity."""
    return reference.new_zeros(()).masked_fill(~visible, float("-inf"))

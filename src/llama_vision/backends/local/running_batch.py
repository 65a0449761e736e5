"""The running sequences, in the order of their rows of the KV cache."""

from collections.abc import Iterable, Iterator

from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.sequence import Sequence, SequenceStatus


class RunningBatch:
    """Continuous batching: rows without gaps, sequences with images first.

    So a decode step computes no empty rows, and text-only rows skip the cross-attention layers.
    """

    def __init__(self, kv_cache: KVCache) -> None:
        self._kv_cache = kv_cache
        self._sequences: list[Sequence] = []
        self.num_image_seqs = 0

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def __len__(self) -> int:
        return len(self._sequences)

    def row_of(self, seq: Sequence) -> int:
        """Find a sequence's row of the KV cache."""
        return self._sequences.index(seq)

    def add(self, seq: Sequence) -> None:
        """Append a sequence, for which the KV cache has room, and write the images its output attends to."""
        last = len(self._sequences)
        self._sequences.append(seq)
        seq.status = SequenceStatus.RUNNING
        if not seq.cross_kv_len:
            return
        row = self.num_image_seqs
        if row < last:
            self._move(row, last)
            self._sequences[row] = seq
        end = 0
        for kv in seq.output_images:
            start, end = end, end + kv.num_vision_tokens
            for layer in kv.keys:
                self._kv_cache.cross_attention.keys[layer][row, :, start:end] = kv.keys[layer]
                self._kv_cache.cross_attention.values[layer][row, :, start:end] = kv.values[layer]
        self.num_image_seqs += 1

    def remove(self, seqs: Iterable[Sequence]) -> None:
        """Remove those that are in the batch, and move others into their rows."""
        for seq in list(seqs):
            if seq not in self._sequences:
                continue
            gap = self.row_of(seq)
            if gap < self.num_image_seqs:
                self.num_image_seqs -= 1
                gap = self._move(self.num_image_seqs, gap)
            self._move(len(self._sequences) - 1, gap)
            self._sequences.pop()

    def clear(self) -> list[Sequence]:
        """Remove and return all."""
        seqs, self._sequences, self.num_image_seqs = self._sequences, [], 0
        return seqs

    def _move(self, source: int, target: int) -> int:
        """Move a row; returns the row that is free then."""
        if source != target:
            seq = self._sequences[target] = self._sequences[source]
            self._kv_cache.copy_row(source, target, seq.num_computed_tokens, seq.cross_kv_len)
        return source

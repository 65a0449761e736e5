"""Continuous batching engine: sequences join and leave the running batch at every step."""

import logging
import warnings
from collections import abc

import torch

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.cuda_graphs import CudaGraphRunner
from llama_vision.backends.local.input_processor import InputProcessor
from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.model_inputs import (
    DecodeShape,
    PrefillChunk,
    prepare_decode,
    prepare_prefill,
)
from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.backends.local.prefix_cache import PrefixCache
from llama_vision.backends.local.running_batch import RunningBatch
from llama_vision.backends.local.sampler import sample
from llama_vision.backends.local.scheduler import schedule_prefill
from llama_vision.backends.local.sequence import Sequence
from llama_vision.backends.local.text_decoder import TextDecoder
from llama_vision.backends.local.vision_encoder import VisionEncoder

_logger = logging.getLogger("llama_vision")


class Engine:
    """Runs several sequences at once. All but `input_processor` belongs to one thread.

    A step is chunked prefill of the prompts that are not computed yet, then one decode step of the batch. Sequences in
    prefill take part in the decode step: their output is ignored, and what they write to the KV cache is overwritten by
    their next chunk.
    """

    def __init__(self, model: LoadedModel, settings: LocalSettings) -> None:
        self.max_model_len = min(model.context_window, settings.max_model_len or model.context_window)
        self.vision_encoder = VisionEncoder(model, settings.image_cache_bytes)
        self.input_processor = InputProcessor(model, self.vision_encoder, self.max_model_len)
        self._max_num_seqs = settings.max_batch_size
        self._kv_cache = KVCache(model.model, self._max_num_seqs)
        self._decoder = TextDecoder(model.model, self.max_model_len)
        self._reference = torch.zeros((), dtype=model.model.dtype, device=model.device)
        self._running = RunningBatch(self._kv_cache)
        self._prefilling: list[Sequence] = []
        self._prefix_cache = PrefixCache(settings.prefix_cache_bytes)
        self._cuda_graphs: CudaGraphRunner | None = None
        if model.device.type == "cuda":
            torch.cuda.set_device(model.device)  # of this thread
            self._cuda_graphs = CudaGraphRunner(self._decode_logits, self._max_num_seqs, model.device)

    @property
    def num_running(self) -> int:
        """Sequences in the running batch."""
        return len(self._running)

    @property
    def num_free(self) -> int:
        """Sequences that could be added."""
        return self._max_num_seqs - len(self._running)

    @torch.inference_mode()
    def add_sequences(self, seqs: abc.Sequence[Sequence]) -> None:
        """Add prepared sequences to the running batch, at most `num_free`."""
        if not seqs:
            return
        try:
            self._allocate(seqs)
        except BaseException as error:  # noqa: BLE001 - whatever it is, consumers wait for it
            self._remove(seqs)
            if len(seqs) == 1:
                seqs[0].fail(error)
                return
            _logger.debug("Adding %d sequences failed, one at a time now: %s", len(seqs), error)
            for seq in seqs:  # so that the failure of one does not affect the others
                self.add_sequences([seq])

    @torch.inference_mode()
    def step(self) -> None:
        """Drop cancelled sequences, run the scheduled prefill chunks, then decode one token of every other sequence."""
        self._remove([seq for seq in self._running if seq.cancelled.is_set()])
        for group in schedule_prefill(self._prefilling, decoding=len(self._prefilling) < len(self._running)):
            self._prefill_or_fail(group)
        if len(self._prefilling) == len(self._running):
            return
        try:
            logits = self._decode()
            seqs = [*self._running]
            rows = [row for row, seq in enumerate(seqs) if not seq.num_remaining_prompt_tokens]
            for row in rows:
                seqs[row].num_computed_tokens += 1
            if self._prefilling:
                logits = logits[rows]
            self._sample_and_append(logits, [seqs[row] for row in rows])
        except BaseException as error:  # noqa: BLE001 - it concerns all sequences, and each consumer waits for it
            self.abort_all(error)

    def abort_all(self, error: BaseException) -> None:
        """Remove all sequences, and send each the error."""
        self._prefilling = []
        for seq in self._running.clear():
            seq.fail(error)

    @property
    def can_trim(self) -> bool:
        """Whether `trim_memory` would free memory."""
        return self._kv_cache.is_oversized and not self._running

    def trim_memory(self) -> None:
        """Free what large requests took of the KV cache, if no sequence is running."""
        if not self._running:
            self._kv_cache.shrink()
            if self._reference.is_cuda:
                torch.cuda.empty_cache()

    def _allocate(self, seqs: abc.Sequence[Sequence]) -> None:
        """Encode the images of new sequences, and give each a row of the KV cache with its cached prefix."""
        prefixes = [self._prefix_cache.match(seq.prompt.cache_key) for seq in seqs]
        for seq, cached_kv in zip(seqs, prefixes, strict=True):
            seq.num_computed_tokens = seq.num_cached_tokens = 0 if cached_kv is None else cached_kv.shape[2]
        spans = [(seq, span) for seq in seqs for span in seq.prompt.image_spans]
        self.vision_encoder.encode([span.image for seq, span in spans if span.end > seq.num_computed_tokens])
        self._kv_cache.self_attention.ensure_capacity(
            len(self._running) + len(seqs), max(len(seq.prompt.token_ids) for seq in seqs), self.max_model_len
        )
        for seq in seqs:
            seq.cross_kv_len = sum(kv.num_vision_tokens for kv in seq.output_images)
        if cross_kv_len := max(seq.cross_kv_len for seq in seqs):
            self._kv_cache.cross_attention.ensure_capacity(
                self._running.num_image_seqs + sum(seq.cross_kv_len > 0 for seq in seqs), cross_kv_len
            )
        for seq, cached_kv in zip(seqs, prefixes, strict=True):
            self._running.add(seq)
            self._prefilling.append(seq)
            if cached_kv is not None:
                self._kv_cache.self_attention.write(self._running.row_of(seq), cached_kv)

    def _prefill_or_fail(self, group: abc.Sequence[tuple[Sequence, int]]) -> None:
        """Prefill a group of chunks; where that fails, one at a time, so that the failure of one affects no other."""
        batch = [(seq, self._chunk(seq, count)) for seq, count in group]
        batch.sort(key=lambda item: not item[1].visible_image_spans)
        seqs = [seq for seq, _ in batch]
        try:
            logits = self._prefill([chunk for _, chunk in batch])
        except BaseException as error:  # noqa: BLE001 - as in `add_sequences`
            if len(group) > 1:
                _logger.debug("Prefill of %d sequences failed, one at a time now: %s", len(group), error)
                for item in group:
                    self._prefill_or_fail([item])
                return
            seqs[0].fail(error)
            self._remove(seqs)
            return
        for seq, chunk in batch:
            seq.num_computed_tokens = chunk.stop
        self._prefilling = [seq for seq in self._prefilling if seq.num_remaining_prompt_tokens]
        done = [index for index, seq in enumerate(seqs) if not seq.num_remaining_prompt_tokens]
        if done:
            for index in done:
                seqs[index].emit_started()
            self._sample_and_append(logits[done], [seqs[index] for index in done])

    def _chunk(self, seq: Sequence, num_tokens: int) -> PrefillChunk:
        start = seq.num_computed_tokens
        return PrefillChunk(seq.prompt, self._running.row_of(seq), start, start + num_tokens)

    def _prefill(self, chunks: abc.Sequence[PrefillChunk]) -> torch.Tensor:
        """Prefill forward pass: logits after each chunk's last token, (chunks, vocab_size)."""
        batch = prepare_prefill(chunks, self.max_model_len, self._reference)
        self._kv_cache.self_attention.ensure_capacity(len(self._running), batch.kv_len, self.max_model_len)
        hidden = self._decoder.forward(batch, self._kv_cache)
        last = torch.tensor([chunk.stop - chunk.start - 1 for chunk in chunks], device=hidden.device)
        return self._decoder.compute_logits(hidden[torch.arange(len(last), device=last.device), last])

    def _decode(self) -> torch.Tensor:
        """Decode forward pass: next-token logits of every row, (batch, vocab_size)."""
        seqs = [*self._running]
        cross_kv_lens = [seq.cross_kv_len for seq in seqs[: self._running.num_image_seqs]]
        kv_len = max(seq.num_computed_tokens for seq in seqs) + 1
        self._kv_cache.self_attention.ensure_capacity(len(seqs), kv_len, self.max_model_len)
        last_tokens = [seq.output_token_ids[-1] if seq.output_token_ids else 0 for seq in seqs]
        decode_inputs = [
            (token_id, seq.num_computed_tokens, seq.cross_kv_len)
            for token_id, seq in zip(last_tokens, seqs, strict=True)
        ]
        shape = DecodeShape(
            num_seqs=len(seqs),
            kv_len=kv_len,
            num_image_seqs=self._running.num_image_seqs,
            cross_kv_len=max(cross_kv_lens, default=0),
            needs_mask=any(seq.num_computed_tokens + 1 < kv_len for seq in seqs),
            needs_cross_mask=len(set(cross_kv_lens)) > 1,
        )
        if self._cuda_graphs is not None:
            try:
                return self._cuda_graphs.run(decode_inputs, shape, self._kv_cache)[: len(seqs)]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._cuda_graphs = None
                text = (
                    f"Decode steps can't be captured as CUDA graphs on this GPU, so they take longer: {error}"
                )
                _logger.warning(text)
                warnings.warn(text, stacklevel=2)
        return self._decode_logits(torch.tensor(decode_inputs, device=self._reference.device), shape)

    def _decode_logits(self, decode_inputs: torch.Tensor, shape: DecodeShape) -> torch.Tensor:
        hidden = self._decoder.forward(prepare_decode(decode_inputs, shape, self._kv_cache), self._kv_cache)
        return self._decoder.compute_logits(hidden[:, -1])

    def _sample_and_append(self, logits: torch.Tensor, seqs: abc.Sequence[Sequence]) -> None:
        """Sample and append a token of each sequence, then cache and remove the finished ones."""
        sampled = sample(logits, [seq.sampler for seq in seqs])
        for seq, token_id in zip(seqs, sampled, strict=True):
            if isinstance(token_id, BaseException):
                seq.fail(token_id)
                self._kv_cache.zero_row(self._running.row_of(seq))  # it may hold NaN, which no mask hides
                continue
            try:
                seq.append_token(token_id)
            except BaseException as error:  # noqa: BLE001 - it concerns this sequence only
                seq.fail(error)
                continue
            if seq.is_finished:
                self._cache_prefix(seq)
        self._remove([seq for seq in seqs if seq.is_finished])

    def _cache_prefix(self, seq: Sequence) -> None:
        """Keep a finished sequence's keys and values for the conversation's next turn."""
        seq_len = seq.num_computed_tokens
        tokens = [*seq.prompt.cache_key, *seq.output_token_ids][:seq_len]
        row = self._running.row_of(seq)
        try:
            self._prefix_cache.insert(tokens, lambda: self._kv_cache.self_attention.read(row, seq_len))
        except torch.OutOfMemoryError:  # a cached prefix is not worth a reply
            _logger.debug("Out of memory: the prefix cache is cleared")
            self._prefix_cache.clear()
        except BaseException:  # nor is it worth those of other sequences
            _logger.exception("A prefix can't be cached")

    def _remove(self, seqs: abc.Sequence[Sequence]) -> None:
        self._running.remove(seqs)
        self._prefilling = [seq for seq in self._prefilling if seq not in seqs]

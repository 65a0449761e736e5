"""Answers many requests at once: they join and leave at every step, and none sees another."""

import warnings
from collections.abc import Callable, Sequence

import torch

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.cuda_graphs import CudaGraphRunner
from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.model_inputs import (
    DecodeShape,
    PrefillChunk,
    prepare_decode,
    prepare_prefill,
)
from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.backends.local.prefix_cache import PrefixCache
from llama_vision.backends.local.running_batch import Row, RunningBatch
from llama_vision.backends.local.sampler import sample
from llama_vision.backends.local.scheduler import schedule_prefill
from llama_vision.backends.local.sequence import Answer, create_sequence
from llama_vision.backends.local.text_decoder import TextDecoder
from llama_vision.backends.local.vision_encoder import VisionEncoder
from llama_vision.core.errors import LlamaVisionError, LocalModelError
from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest


class Engine:
    """Works on several answers at once. It belongs to one thread.

    A step reads a piece of those prompts that are not read to the end, and writes a token of every other answer. Rows that
    read take part in the writing: what they write has no meaning, and the next word they read is put over it.

    Attributes:
        max_model_len: The most tokens of prompt and reply together.
        vision_encoder: Sees images.
        num_prefill_tokens: How many words of prompts went through the layers.

    """

    def __init__(self, loaded: LoadedModel, settings: LocalSettings) -> None:
        self.max_model_len = min(loaded.context_window, settings.max_model_len or loaded.context_window)
        self.vision_encoder = VisionEncoder(loaded, settings.image_cache_bytes)
        self._loaded = loaded
        self._max_num_seqs = settings.max_batch_size
        self._kv_cache = KVCache(loaded.model, self._max_num_seqs)
        self._decoder = TextDecoder(loaded.model, self.max_model_len)
        self._reference = torch.zeros((), dtype=loaded.model.dtype, device=loaded.device)
        self._running = RunningBatch(self._kv_cache)
        self._prefilling: list[Row] = []
        self._prefix_cache = PrefixCache(settings.prefix_cache_bytes)
        self.num_prefill_tokens = 0
        self._cuda_graphs: CudaGraphRunner | None = None
        if loaded.device.type == "cuda":
            torch.cuda.set_device(loaded.device)  # of this thread
            self._cuda_graphs = CudaGraphRunner(self._decode_logits, self._max_num_seqs, loaded.device)

    @property
    def num_running(self) -> int:
        """How many answers are in the making."""
        return len(self._running)

    @property
    def num_free(self) -> int:
        """How many more could be."""
        return self._max_num_seqs - len(self._running)

    def answer_to(
        self,
        request: ChatRequest,
        emit: Callable[[Event | LlamaVisionError], None],
        cancelled: Callable[[], bool],
    ) -> Answer:
        """Get ready to answer a request; see `answer.answer_to`."""
        return create_sequence(
            request,
            self._loaded,
            self.vision_encoder,
            max_len=self.max_model_len,
            on_output=emit,
            is_cancelled=cancelled,
        )

    @torch.inference_mode()
    def add_sequences(self, answers: Sequence[Answer]) -> None:
        """Take answers in; `step` does the rest.

        Args:
            answers: Not more than `num_free`.

        """
        rows = [Row(answer) for answer in answers]
        try:
            self._allocate(rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, someone is waiting to hear of it
            self._remove(rows)
            if len(answers) == 1:
                answers[0].fail(to_local_model_error(error))
                return
            for answer in answers:  # so that one does not spoil the others
                self.add_sequences([answer])

    @torch.inference_mode()
    def step(self) -> None:
        """Read on, write the next token of every answer, and let those go that nobody waits for."""
        self._remove([row for row in self._running if row.answer.is_cancelled()])
        for group in schedule_prefill(self._prefilling, decoding=len(self._prefilling) < len(self._running)):
            self._prefill_or_fail(group)
        if len(self._prefilling) == len(self._running):
            return
        try:
            scores = self._decode()
            writing = [
                (place, row) for place, row in enumerate(self._running) if not row.num_remaining_prompt_tokens
            ]
            for _, row in writing:
                row.num_computed_tokens += 1
            if self._prefilling:
                scores = scores[[place for place, _ in writing]]
            self._sample_and_append(scores, [row for _, row in writing])
        except Exception as error:  # noqa: BLE001 - it concerns all, and each waits to hear of it
            self.abort_all(to_local_model_error(error))

    def abort_all(self, error: LlamaVisionError) -> None:
        """Give up all answers."""
        self._prefilling = []
        for row in self._running.clear():
            row.answer.fail(error)

    @property
    def can_trim(self) -> bool:
        """Whether `trim_memory` would give memory back."""
        return self._kv_cache.large and not self._running

    def trim_memory(self) -> None:
        """Give back the memory that large requests took, if nothing is being done."""
        if not self._running:
            self._kv_cache.shrink()
            if self._reference.is_cuda:
                torch.cuda.empty_cache()

    def _allocate(self, rows: Sequence[Row]) -> None:
        """Give new answers their rows, with what is known of their prompts and what they see of images."""
        if not rows:
            return
        known = [self._prefix_cache.match(row.answer.prompt.cache_key) for row in rows]
        for row, cached_kv in zip(rows, known, strict=True):
            row.num_computed_tokens = 0 if cached_kv is None else cached_kv.shape[2]
            row.answer.num_cached_tokens = row.num_computed_tokens
        self.vision_encoder.encode(
            [
                glimpse.image
                for row in rows
                for glimpse in row.answer.prompt.image_spans
                if glimpse.end > row.num_computed_tokens
            ]
        )
        longest = max(len(row.answer.prompt.token_ids) for row in rows)
        self._kv_cache.self_attention.ensure_capacity(
            len(self._running) + len(rows), longest, self.max_model_len
        )
        for row in rows:
            row.cross_kv_len = sum(seen.num_vision_tokens for seen in row.encoded_images)
        if columns := max(row.cross_kv_len for row in rows):
            self._kv_cache.cross_attention.ensure_capacity(
                self._running.num_image_seqs + sum(row.cross_kv_len > 0 for row in rows), columns
            )
        for row, cached_kv in zip(rows, known, strict=True):
            self._running.add(row)
            self._prefilling.append(row)
            if cached_kv is not None:
                self._kv_cache.self_attention.write(self._running.row_of(row), cached_kv)

    def _prefill_or_fail(self, group: Sequence[tuple[Row, int]]) -> None:
        """Read on in some prompts together; where that fails, in each by itself, so that one does not spoil the others."""
        pieces = [
            PrefillChunk(
                row.answer.prompt,
                self._running.row_of(row),
                row.num_computed_tokens,
                row.num_computed_tokens + count,
            )
            for row, count in group
        ]
        order = sorted(range(len(group)), key=lambda number: not pieces[number].visible_image_spans)
        pieces, rows = [pieces[number] for number in order], [group[number][0] for number in order]
        try:
            scores = self._prefill(pieces)
        except Exception as error:  # noqa: BLE001 - as in `add_sequences`
            if len(group) > 1:
                for one in group:
                    self._prefill_or_fail([one])
                return
            rows[0].answer.fail(to_local_model_error(error))
            self._remove(rows)
            return
        for row, piece in zip(rows, pieces, strict=True):
            row.num_computed_tokens = piece.stop
        self._prefilling = [row for row in self._prefilling if row.num_remaining_prompt_tokens]
        ready = [number for number, row in enumerate(rows) if not row.num_remaining_prompt_tokens]
        for number in ready:
            rows[number].answer.emit_started()
        if ready:
            self._sample_and_append(scores[ready], [rows[number] for number in ready])

    def _prefill(self, pieces: Sequence[PrefillChunk]) -> torch.Tensor:
        """Let pieces of prompts go through the layers: scores of what follows them (rows, vocabulary)."""
        step = prepare_prefill(pieces, self.max_model_len, self._reference)
        self._kv_cache.self_attention.ensure_capacity(len(self._running), step.kv_len, self.max_model_len)
        hidden = self._decoder.forward(step, self._kv_cache)
        lengths = [piece.stop - piece.start for piece in pieces]
        self.num_prefill_tokens += sum(lengths)
        last = torch.tensor(lengths, device=self._reference.device) - 1
        return self._decoder.compute_logits(hidden[torch.arange(len(last), device=last.device), last])

    def _decode(self) -> torch.Tensor:
        """Let every answer go on by a token: scores of what follows it (rows, vocabulary)."""
        rows = [*self._running]
        columns = [row.cross_kv_len for row in rows[: self._running.num_image_seqs]]
        reach = max(row.num_computed_tokens for row in rows) + 1
        self._kv_cache.self_attention.ensure_capacity(len(rows), reach, self.max_model_len)
        numbers = [
            (
                row.output_token_ids[-1] if row.output_token_ids else 0,
                row.num_computed_tokens,
                row.cross_kv_len,
            )
            for row in rows
        ]
        shape = DecodeShape(
            num_seqs=len(rows),
            kv_len=reach,
            num_image_seqs=self._running.num_image_seqs,
            cross_kv_len=max(columns, default=0),
            needs_mask=any(row.num_computed_tokens + 1 < reach for row in rows),
            needs_cross_mask=len(set(columns)) > 1,
        )
        if self._cuda_graphs is not None:
            try:
                return self._cuda_graphs.run(numbers, shape, self._kv_cache)[: len(rows)]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._cuda_graphs = None
                warnings.warn(
                    f"Steps can't be recorded on this GPU, so they take longer: {error}", stacklevel=2
                )
        return self._decode_logits(torch.tensor(numbers, device=self._reference.device), shape)

    def _decode_logits(self, numbers: torch.Tensor, shape: DecodeShape) -> torch.Tensor:
        hidden = self._decoder.forward(prepare_decode(numbers, shape, self._kv_cache), self._kv_cache)
        return self._decoder.compute_logits(hidden[:, -1])

    def _sample_and_append(self, scores: torch.Tensor, rows: Sequence[Row]) -> None:
        """Choose a token for each of the rows, and let those go whose answers are over."""
        chosen = sample(scores, [row.answer.sampler for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            if isinstance(token, Exception):
                row.answer.fail(to_local_model_error(token))
                continue
            row.output_token_ids.append(token)
            try:
                row.answer.take(token)
            except Exception as error:  # noqa: BLE001 - it concerns this answer only
                row.answer.fail(to_local_model_error(error))
                continue
            if row.answer.is_finished:
                self._cache_prefix(row)
        self._remove([row for row in rows if row.answer.is_finished])

    def _cache_prefix(self, row: Row) -> None:
        """Keep what is remembered of a conversation, for its next turn."""
        words = [*row.answer.prompt.cache_key, *row.output_token_ids][: row.num_computed_tokens]
        place = self._running.row_of(row)
        try:
            self._prefix_cache.insert(
                words, lambda: self._kv_cache.self_attention.read(place, row.num_computed_tokens)
            )
        except torch.OutOfMemoryError:  # it is not worth an answer
            self._prefix_cache.clear()

    def _remove(self, rows: Sequence[Row]) -> None:
        """Take answers out."""
        self._running.remove(rows)
        self._prefilling = [row for row in self._prefilling if row not in rows]


def to_local_model_error(error: Exception) -> LlamaVisionError:
    """Say what went wrong, and what to do about it."""
    if isinstance(error, LlamaVisionError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        failure = LocalModelError(
            "The memory of the device is full. Give LocalSettings a lower max_batch_size, max_model_len or "
            f"image_cache_bytes. {error}"
        )
    else:
        failure = LocalModelError(f"Generating failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure

"""Continuous batching engine: sequences join and leave the running batch at every step."""

import importlib
import itertools
import logging
from collections import abc, deque

import torch

from llama_vision.backends.local.attention import (
    DecodeAttention,
    ImageAttention,
    PagedDecodeAttention,
    PrefillAttention,
    PrefillChunk,
)
from llama_vision.backends.local.block_allocator import BlockAllocator, BlockTable
from llama_vision.backends.local.block_pool import BlockPool
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.cuda_graphs import CudaGraphRunner
from llama_vision.backends.local.device_map import modules_by_device, pipeline_stages
from llama_vision.backends.local.encoder_cache import EncodedImage, EncoderCache
from llama_vision.backends.local.image_input import ImageInput, ImagePreprocessor
from llama_vision.backends.local.input_processor import InputProcessor
from llama_vision.backends.local.kernels import Kernels, triton_kernels, warn_slower
from llama_vision.backends.local.kv_cache import KVCache, block_layout
from llama_vision.backends.local.kv_cache_size import num_available_blocks, num_kv_cache_blocks
from llama_vision.backends.local.model_inputs import (
    decode_inputs,
    image_attention,
    prefill_chunk,
    verification_chunk,
)
from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.backends.local.prefix_cache import PrefixCache
from llama_vision.backends.local.sampler import sample, tokens_or_errors
from llama_vision.backends.local.scheduler import schedule_prefill
from llama_vision.backends.local.sequence import Sequence, SequenceStatus
from llama_vision.backends.local.speculative_decoding import MIN_DRAFT_TOKENS, pays_prompt_lookup
from llama_vision.backends.local.text_decoder import TextDecoder
from llama_vision.backends.local.vision_encoder import VisionEncoder
from llama_vision.core.errors import LocalModelError

_logger = logging.getLogger("llama_vision")


class Engine:
    """Runs several sequences at once. All but `input_processor` belongs to one thread.

    A step admits waiting sequences for which there are blocks of the KV cache, then computes a chunk of the prompts that
    are not computed yet, then decodes one token of every other sequence.

    With a model on several devices, a forward pass goes through its pipeline stages one after another: each layer has its part of the
    KV cache beside it, and hidden states move on. Decode steps run without CUDA graphs then, which belong to one device.
    """

    def __init__(self, model: LoadedModel, settings: LocalSettings) -> None:
        self.max_model_len = min(model.context_window, settings.max_model_len or model.context_window)
        self._max_num_seqs = settings.max_batch_size
        self._device = model.device
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # of this thread
            importlib.import_module("torch.nn.attention.bias")  # takes a second, and prefills need it there
        elif self._device.type == "cpu":
            _keep_freed_memory()
        self._kv_caches = _allocate_kv_caches(model, settings, self.max_model_len)  # of each pipeline stage
        self._pool = BlockPool(self._kv_caches[0].num_blocks)
        self._prefix_cache, self._encoder_cache = _caches(self._pool, self._kv_caches, settings)
        self._allocator = BlockAllocator(
            self._kv_caches,
            self._pool,
            self._prefix_cache,
            self._encoder_cache,
            max_num_seqs=self._max_num_seqs,
            max_model_len=self.max_model_len,
            device=self._device,
        )
        preprocessor = ImagePreprocessor(model, self._encoder_cache.num_vision_tokens)
        self._vision_encoder = VisionEncoder(model, self._kv_caches, preprocessor)
        self.input_processor = InputProcessor(
            model, preprocessor, self.max_model_len, self._allocator.num_tokens_beside_images
        )
        self._decoder = TextDecoder(
            model.model, model.device_map, self._kv_caches[0].layout, self.max_model_len
        )
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # in order of admission
        # Of the last decode step: mostly its sequences are those of the next one as well.
        self._tables_with_images: list[BlockTable] = []
        self._image_attentions: list[ImageAttention] = []
        self._cuda_graphs: CudaGraphRunner | None = None
        is_one_gpu = self._device.type == "cuda" and len(modules_by_device(model.device_map)) == 1
        if is_one_gpu and (kernels := triton_kernels()) is not None:
            self._cuda_graphs = self._cuda_graph_runner(kernels)

    @property
    def num_running(self) -> int:
        """Sequences that were added and are not finished; some may wait for blocks of the KV cache."""
        return len(self._running) + len(self._waiting)

    @property
    def num_free(self) -> int:
        """Sequences that could be added."""
        return self._max_num_seqs - self.num_running

    @torch.inference_mode()
    def add_sequences(self, seqs: abc.Sequence[Sequence]) -> None:
        """Add prepared sequences, at most `num_free`, and admit them as far as there are blocks."""
        self._waiting.extend(seqs)
        self._admit()

    @torch.inference_mode()
    def step(self) -> None:
        """Drop cancelled sequences, admit waiting ones, run the scheduled prefill chunks, then decode the other ones."""
        self._drop_cancelled()
        self._admit()
        prefilling = [seq for seq in self._running if seq.num_remaining_prefill_tokens]
        group = schedule_prefill(prefilling, decoding=len(prefilling) < len(self._running))
        if group:
            self._prefill_or_fail(group)
        try:
            self._decode_and_append()
        except BaseException as error:  # noqa: BLE001 - it concerns all sequences, and each consumer waits for it
            self.abort_all(error)

    def abort_all(self, error: BaseException) -> None:
        """Remove all sequences, and send each the error."""
        seqs = [*self._running, *self._waiting]
        self._waiting.clear()
        self._remove(self._running)
        for seq in seqs:
            seq.fail(error)

    def _drop_cancelled(self) -> None:
        self._waiting = deque(seq for seq in self._waiting if not seq.cancelled.is_set())
        self._remove([seq for seq in self._running if seq.cancelled.is_set()])

    def _admit(self) -> None:
        """Start waiting sequences in order, as long as there are blocks for the next one."""
        admitted: list[Sequence] = []
        while self._waiting and self._allocate_or_fail(seq := self._waiting[0]):
            self._waiting.popleft()
            if not seq.is_finished:
                self._running.append(seq)
                admitted.append(seq)
        self._encode_or_fail(admitted)

    def _allocate_or_fail(self, seq: Sequence) -> bool:
        """Give a sequence its blocks, or an error; False where it has to wait for them."""
        try:
            # The reserved ones let those that run go on for a while.
            is_allocated = self._allocator.allocate(seq, num_reserved=len(self._running))
            if not is_allocated and not self._running:
                raise _no_room_error()  # noqa: TRY301 - as all that fails here
        except BaseException as error:  # noqa: BLE001 - whatever it is, consumers wait for it
            if seq.block_table is not None:
                self._allocator.free(seq)
            seq.fail(error)
            return True
        if is_allocated:
            seq.status = SequenceStatus.RUNNING
            if not seq.output_token_ids:
                seq.num_cached_tokens = seq.num_computed_tokens
        return is_allocated

    def _encode_or_fail(self, seqs: abc.Sequence[Sequence]) -> None:
        """Encode the images of admitted sequences; where that fails, one at a time, so that the failure of one affects no other."""
        try:
            self._vision_encoder.encode(_images_to_encode(seqs))
        except BaseException as error:  # noqa: BLE001 - whatever it is, consumers wait for it
            if len(seqs) > 1:
                _logger.debug(
                    "Encoding the images of %d sequences failed, one at a time now: %s", len(seqs), error
                )
                for seq in seqs:
                    self._encode_or_fail([seq])
                return
            self._remove(seqs)
            seqs[0].fail(error)

    def _prefill_or_fail(self, group: abc.Sequence[tuple[Sequence, int]]) -> None:
        """Prefill a group of chunks; where that fails, one at a time, as in `_encode_or_fail`."""
        seqs = [seq for seq, _ in group]
        try:
            chunks = [prefill_chunk(seq, count) for seq, count in group]
            logits = self._prefill(chunks)
        except BaseException as error:  # noqa: BLE001 - as in `_encode_or_fail`
            if len(group) > 1:
                _logger.debug("Prefill of %d sequences failed, one at a time now: %s", len(group), error)
                for item in group:
                    self._prefill_or_fail([item])
                return
            self._remove(seqs)
            seqs[0].fail(error)
            return
        for seq, chunk in zip(seqs, chunks, strict=True):
            seq.num_computed_tokens = chunk.stop
            self._cache_prefix(seq)
        # After a preemption the next token is known already.
        done = [
            index
            for index, seq in enumerate(seqs)
            if not (seq.num_remaining_prefill_tokens or seq.output_token_ids)
        ]
        if done:
            for index in done:
                seqs[index].emit_started()
            self._sample_and_append(logits[done], [seqs[index] for index in done])

    def _prefill(self, chunks: abc.Sequence[PrefillChunk]) -> torch.Tensor:
        """Prefill forward pass: logits after each chunk's last token, (chunks, vocab_size)."""
        lens, last_device = [len(chunk.token_ids) for chunk in chunks], self._kv_caches[-1].device
        ends = torch.tensor(lens, device=last_device).cumsum(0)
        return self._decoder.compute_logits(self._forward(chunks)[ends - 1])

    def _forward(self, chunks: abc.Sequence[PrefillChunk]) -> torch.Tensor:
        """Forward pass of chunks: hidden states of all their tokens, (tokens, hidden_size)."""
        token_ids = [token_id for chunk in chunks for token_id in chunk.token_ids]
        positions = [position for chunk in chunks for position in range(chunk.start, chunk.stop)]
        return self._decoder.forward(
            torch.tensor(token_ids, device=self._device),
            torch.tensor(positions, device=self._device),
            [PrefillAttention(kv_cache, chunks) for kv_cache in self._kv_caches],
        )

    def _decode_and_append(self) -> None:
        """Decode the next token of every sequence whose prompt is computed, or several where there is a draft."""
        self._preempt_for_decode()
        seqs = [seq for seq in self._running if not seq.num_remaining_prefill_tokens]
        drafts = self._propose_drafts(seqs)
        seqs = [seq for seq in seqs if not (seq.is_finished or seq in drafts)]
        if drafts:
            self._verify_and_append(drafts)
        if not seqs:
            return
        seqs.sort(key=lambda seq: not seq.running_block_table.output_images)
        sampled = self._decode(seqs)
        for seq in seqs:
            seq.num_computed_tokens += 1
        self._append(sampled, seqs)

    def _propose_drafts(self, seqs: abc.Sequence[Sequence]) -> dict[Sequence, list[int]]:
        """Get the drafts that are worth a forward pass of their own."""
        looks_up = pays_prompt_lookup(self._device, len(seqs))
        drafts: dict[Sequence, list[int]] = {}
        for seq in seqs:
            try:
                draft = seq.draft_token_ids(looks_up=looks_up)
            except BaseException as error:  # noqa: BLE001 - it concerns this sequence only
                seq.fail(error)
                continue
            if len(draft) >= MIN_DRAFT_TOKENS and self._allocator.append_slots(seq, 1 + len(draft)):
                drafts[seq] = draft
        self._remove([seq for seq in seqs if seq.is_finished])
        # Another forward pass has to be worth a decode step of the whole batch.
        return drafts if sum(map(len, drafts.values())) >= len(seqs) else {}

    def _verify_and_append(self, drafts: dict[Sequence, list[int]]) -> None:
        """Run a forward pass over drafts, and append what is sampled, up to the first token that is another.

        The first tokens of all drafts are sampled together, then the second ones: what may be one depends on those before.
        """
        chunks = [verification_chunk(seq, draft) for seq, draft in drafts.items()]
        logits = self._decoder.compute_logits(self._forward(chunks))
        starts = itertools.accumulate((len(chunk.token_ids) for chunk in chunks), initial=0)
        rows, num_output = dict(zip(drafts, starts, strict=False)), [seq.num_output_tokens for seq in drafts]
        agreeing = list(drafts)
        for index in itertools.count():
            for seq in agreeing:
                seq.num_computed_tokens += 1
            self._sample_and_append(logits[[rows[seq] + index for seq in agreeing]], agreeing)
            agreeing = [
                seq
                for seq in agreeing
                if not seq.is_finished and seq.output_token_ids[-1:] == drafts[seq][index : index + 1]
            ]
            if not agreeing:
                break
        for seq, before in zip(drafts, num_output, strict=True):
            if seq.prompt_lookup is not None:
                seq.prompt_lookup.record(seq.num_output_tokens - before - 1)

    def _decode(self, seqs: abc.Sequence[Sequence]) -> list[int | BaseException]:
        """Decode forward pass and sampling: the next token of each sequence, or an error in its place."""
        samplers = [seq.sampler for seq in seqs]
        if self._cuda_graphs is not None:
            inputs = [
                (seq.output_token_ids[-1], seq.num_computed_tokens, seq.running_block_table.row)
                for seq in seqs
            ]
            has_images = any(seq.running_block_table.output_images for seq in seqs)
            try:
                output = self._cuda_graphs.run(inputs, samplers, has_images=has_images)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - Triton's and CUDA's have no class in common
                self._cuda_graphs = None
                warn_slower(f"They can't be compiled or captured: {error}")
            else:
                if output.token_ids is None:
                    return sample(output.logits, samplers)
                return tokens_or_errors(output.token_ids, output.failures)
        inputs = decode_inputs(seqs, self._allocator.tables, self._kv_caches[0].layout)
        token_ids = torch.tensor([seq.output_token_ids[-1] for seq in seqs], device=self._device)
        images = self._image_attentions_of(seqs) or [None] * len(self._kv_caches)
        attentions = [
            DecodeAttention(kv_cache, inputs.to(kv_cache.device), its)
            for kv_cache, its in zip(self._kv_caches, images, strict=True)
        ]
        logits = self._decoder.compute_logits(self._decoder.forward(token_ids, inputs.positions, attentions))
        return sample(logits, samplers)

    def _image_attentions_of(self, seqs: abc.Sequence[Sequence]) -> list[ImageAttention]:
        """Of each pipeline stage; none where no sequence has images."""
        with_images = [table for seq in seqs if (table := seq.running_block_table).output_images]
        if with_images != self._tables_with_images:
            self._tables_with_images = with_images
            self._image_attentions = [
                image_attention(with_images, self._allocator.tables, kv_cache)
                for kv_cache in self._kv_caches
                if with_images
            ]
        return self._image_attentions

    def _cuda_graph_runner(
        self, kernels: Kernels, runner: type[CudaGraphRunner] = CudaGraphRunner
    ) -> CudaGraphRunner:
        tables, decoder = self._allocator.tables, self._decoder.with_kernels(kernels)
        (kv_cache,) = self._kv_caches

        def forward(inputs: torch.Tensor, has_images: bool) -> torch.Tensor:
            token_ids, positions, rows = inputs.t().contiguous().unbind()  # as kernels read them
            attention = PagedDecodeAttention(
                kv_cache, tables, kernels, positions, rows, has_images=has_images
            )
            return decoder.compute_logits(decoder.forward(token_ids, positions, [attention]))

        return runner(forward, self._max_num_seqs, (0, 0, tables.padding_row), self._device)

    def _preempt_for_decode(self) -> None:
        """Give every decoding sequence a block for its next token, at the cost of those that were admitted last."""
        for seq in list(self._running):
            while seq in self._running and not (
                seq.num_remaining_prefill_tokens or self._allocator.append_slots(seq, 1)
            ):
                self._preempt(self._running[-1])

    def _preempt(self, seq: Sequence) -> None:
        """Put a sequence back: its blocks are free, and its tokens will be prefilled again."""
        _logger.info("The KV cache is full: preempted a sequence of %d tokens", seq.num_computed_tokens)
        self._cache_prefix(seq, is_complete=True)
        self._remove([seq])
        seq.status = SequenceStatus.PREPARED
        seq.num_computed_tokens = 0
        self._waiting.appendleft(seq)

    def _sample_and_append(self, logits: torch.Tensor, seqs: abc.Sequence[Sequence]) -> None:
        self._append(sample(logits, [seq.sampler for seq in seqs]), seqs)

    def _append(self, sampled: abc.Sequence[int | BaseException], seqs: abc.Sequence[Sequence]) -> None:
        """Append a token to each sequence, or fail it, then cache and remove the finished ones."""
        for seq, token_id in zip(seqs, sampled, strict=True):
            if isinstance(token_id, BaseException):
                seq.fail(token_id)
                continue
            try:
                seq.append_token(token_id)
            except BaseException as error:  # noqa: BLE001 - it concerns this sequence only
                seq.fail(error)
                continue
            if seq.is_finished:
                self._cache_prefix(seq, is_complete=True)
        self._remove([seq for seq in seqs if seq.is_finished])

    def _cache_prefix(self, seq: Sequence, *, is_complete: bool = False) -> None:
        try:
            self._allocator.cache_prefix(seq, is_complete=is_complete)
        except BaseException:  # it is not worth a reply
            _logger.exception("A prefix can't be cached")

    def _remove(self, seqs: abc.Sequence[Sequence]) -> None:
        for seq in seqs:
            self._allocator.free(seq)
        self._running = [seq for seq in self._running if seq.block_table is not None]


def _images_to_encode(seqs: abc.Sequence[Sequence]) -> list[tuple[ImageInput, EncodedImage]]:
    images = {
        key: (span.image, image)
        for seq in seqs
        for span in seq.prompt.image_spans
        if (image := seq.running_block_table.images.get(key := span.image.key)) and not image.is_encoded
    }
    return list(images.values())


def _allocate_kv_caches(model: LoadedModel, settings: LocalSettings, max_model_len: int) -> list[KVCache]:
    config, dtype = model.model.config, model.model.dtype
    layout, stages = block_layout(config.text_config), pipeline_stages(model.device_map)
    layouts = [layout.of_layers(stage.layers) for stage in stages]
    num_blocks = num_kv_cache_blocks(
        layout,
        settings,
        max_model_len=max_model_len,
        num_vision_tokens=model.model.model.vision_model.num_patches * config.vision_config.max_num_tiles,
        block_bytes=sum(its.num_elements for its in layouts) * dtype.itemsize,
        num_available=num_available_blocks(config, layout, settings.max_batch_size, dtype, model.device_map),
    )
    kv_caches = [
        KVCache(its, num_blocks, dtype, stage.device) for its, stage in zip(layouts, stages, strict=True)
    ]
    _logger.info(
        "KV cache: %d blocks of %d tokens or %d vision tokens, %d bytes",
        *(num_blocks, layout.block_size, layout.vision_block_size, sum(one.num_bytes for one in kv_caches)),
    )
    return kv_caches


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that activations free, up to 64 MB: page by page, steps would take it anew from the kernel.

    A block below 32 MB raises the thresholds when it is freed (mallopt(3), M_MMAP_THRESHOLD). Other allocators ignore it.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8)


def _caches(
    pool: BlockPool, kv_caches: abc.Sequence[KVCache], settings: LocalSettings
) -> tuple[PrefixCache, EncoderCache]:
    block_bytes = sum(one.num_bytes for one in kv_caches) // kv_caches[0].num_blocks
    prefixes, images = (
        None if num_bytes is None else num_bytes // block_bytes
        for num_bytes in (settings.prefix_cache_bytes, settings.image_cache_bytes)
    )
    return PrefixCache(pool, kv_caches[0].layout.block_size, prefixes), EncoderCache(pool, images)


def _no_room_error() -> LocalModelError:
    return LocalModelError(
        "The KV cache has no room for this request. Give LocalSettings a higher kv_cache_bytes, or ask with fewer images."
    )

"""CUDA graphs: capture and replay of decode steps.

A decode step of the 11B is a thousand small kernels, which take longer to launch than to run.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.model_inputs import DecodeShape

_MAX_GRAPHS = 64
_MIN_KV_LEN = 256

_logger = logging.getLogger("llama_vision")


class CudaGraphRunner:
    """One CUDA graph per bucket of shapes."""

    def __init__(
        self,
        forward: Callable[[torch.Tensor, DecodeShape], torch.Tensor],
        max_num_seqs: int,
        device: torch.device,
    ) -> None:
        self._forward = forward
        self._max_num_seqs = max_num_seqs
        self._static_inputs = torch.zeros(max_num_seqs, 3, dtype=torch.long, device=device)
        self._graphs: dict[DecodeShape, tuple[Any, torch.Tensor]] = {}
        self._pool: Any = None
        self._cache_generation = 0

    def run(
        self, decode_inputs: Sequence[tuple[int, int, int]], shape: DecodeShape, kv_cache: KVCache
    ) -> torch.Tensor:
        """Replay the graph of a decode step, and capture it first where there is none or the KV cache was reallocated.

        Returns:
            Logits, (batch or more, vocab_size), valid until the next step.
        """
        bucket = bucket_shape(shape, self._max_num_seqs, kv_cache)
        padded = [*decode_inputs, *[(0, 0, 0)] * (bucket.num_seqs - len(decode_inputs))]
        self._static_inputs[: bucket.num_seqs].copy_(torch.tensor(padded))
        if self._cache_generation != kv_cache.generation:
            self._graphs.clear()
            self._cache_generation = kv_cache.generation
        if bucket not in self._graphs:
            if len(self._graphs) >= _MAX_GRAPHS:
                self._graphs.clear()
            self._graphs[bucket] = self._capture(bucket)
            _logger.info("Captured a CUDA graph for %s", bucket)
        graph, logits = self._graphs[bucket]
        graph.replay()
        return logits

    def _capture(self, shape: DecodeShape) -> tuple[Any, torch.Tensor]:
        # Warm up on a side stream: libraries allocate their workspaces then, which is forbidden during a capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._forward(self._static_inputs, shape)
        torch.cuda.current_stream().wait_stream(side)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as another model's, may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._forward(self._static_inputs, shape)
        return graph, logits


def bucket_shape(shape: DecodeShape, max_num_seqs: int, kv_cache: KVCache) -> DecodeShape:
    """Round a shape up to its bucket, so that few graphs serve all steps."""
    num_seqs = min(_next_power_of_two(shape.num_seqs), max_num_seqs)
    return DecodeShape(
        num_seqs=num_seqs,
        kv_len=min(max(_next_power_of_two(shape.kv_len), _MIN_KV_LEN), kv_cache.self_attention.capacity),
        num_image_seqs=min(_next_power_of_two(shape.num_image_seqs), num_seqs) if shape.num_image_seqs else 0,
        cross_kv_len=kv_cache.cross_attention.capacity if shape.num_image_seqs else 0,
        needs_mask=True,
        needs_cross_mask=shape.num_image_seqs > 0,
    )


def _next_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()

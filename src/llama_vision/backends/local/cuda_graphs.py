"""Steps recorded on an NVIDIA GPU: a step of the 11B is a thousand small pieces of work, slower to ask for than to do."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.model_inputs import DecodeShape

_MAX_GRAPHS = 64
_MIN_KV_LEN = 256


class CudaGraphRunner:
    """Recorded steps, one for each shape. Shapes are rounded up, so that there are few."""

    def __init__(
        self, work: Callable[[torch.Tensor, DecodeShape], torch.Tensor], max_rows: int, device: torch.device
    ) -> None:
        self._forward = work
        self._max_rows = max_rows
        self._static_inputs = torch.zeros(max_rows, 3, dtype=torch.long, device=device)
        self._graphs: dict[DecodeShape, tuple[Any, torch.Tensor]] = {}
        self._pool: Any = None
        self._cache_generation = 0

    def run(
        self, numbers: Sequence[tuple[int, int, int]], shape: DecodeShape, slots: KVCache
    ) -> torch.Tensor:
        """Do a step.

        Args:
            numbers: As `passes.step_pass` takes them.
            shape: The shape that is needed.
            slots: What is remembered; where it has moved, everything is recorded anew.

        Returns:
            The scores (rows or more, vocabulary), until the next step.

        """
        shape = bucket_shape(shape, self._max_rows, slots)
        filled = [*numbers, *[(0, 0, 0)] * (shape.num_seqs - len(numbers))]
        self._static_inputs[: shape.num_seqs].copy_(torch.tensor(filled))
        if self._cache_generation != slots.generation:
            self._graphs.clear()
            self._cache_generation = slots.generation
        if shape not in self._graphs:
            if len(self._graphs) >= _MAX_GRAPHS:
                self._graphs.clear()
            self._graphs[shape] = self._capture(shape)
        graph, scores = self._graphs[shape]
        graph.replay()
        return scores

    def _capture(self, shape: DecodeShape) -> tuple[Any, torch.Tensor]:
        # Once unrecorded and on a stream of its own: libraries take their memory then, which a recording may not.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._forward(self._static_inputs, shape)
        torch.cuda.current_stream().wait_stream(side)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as those of another model, may go on using the GPU.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            scores = self._forward(self._static_inputs, shape)
        return graph, scores


def bucket_shape(shape: DecodeShape, max_rows: int, slots: KVCache) -> DecodeShape:
    """Round a shape up, to one that does the work of many."""
    rows = min(_next_power_of_two(shape.num_seqs), max_rows)
    return DecodeShape(
        num_seqs=rows,
        kv_len=min(max(_next_power_of_two(shape.kv_len), _MIN_KV_LEN), slots.self_attention.columns),
        num_image_seqs=min(_next_power_of_two(shape.num_image_seqs), rows) if shape.num_image_seqs else 0,
        cross_kv_len=slots.cross_attention.columns if shape.num_image_seqs else 0,
        needs_mask=True,
        needs_cross_mask=shape.num_image_seqs > 0,
    )


def _next_power_of_two(number: int) -> int:
    """Find the next power of two."""
    return 1 << (number - 1).bit_length()

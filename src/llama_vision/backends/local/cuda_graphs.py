"""CUDA graphs: capture and replay of decode steps.

A decode step of the 11B is a thousand small kernels, which take longer to launch than to run.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

_logger = logging.getLogger("llama_vision")


class CudaGraphRunner:
    """One CUDA graph for each batch size, rounded up to a power of two, with and without images.

    A graph reads lengths and block tables from the device, where they stay in place, so it serves all that come.
    """

    def __init__(
        self,
        forward: Callable[[torch.Tensor, bool], torch.Tensor],
        max_num_seqs: int,
        padding: tuple[int, int, int],
        device: torch.device,
    ) -> None:
        """Take the forward pass of a decode step, and the inputs of a padding row."""
        self._forward = forward
        self._max_num_seqs = max_num_seqs
        self._padding = padding
        self._static_inputs = torch.tensor([padding] * max_num_seqs, device=device)
        self._graphs: dict[tuple[int, bool], tuple[Any, torch.Tensor]] = {}
        self._pool: Any = None

    def run(self, inputs: Sequence[tuple[int, int, int]], *, has_images: bool) -> torch.Tensor:
        """Replay the graph of a decode step, and capture it first where there is none.

        Args:
            inputs: Token id, position, and row of the block tables of each sequence.
            has_images: Whether any of them attends to images.

        Returns:
            Logits, (sequences, vocab_size), valid until the next step.
        """
        num_seqs = min(1 << (len(inputs) - 1).bit_length(), self._max_num_seqs)
        padded = [*inputs, *[self._padding] * (num_seqs - len(inputs))]
        self._static_inputs[:num_seqs].copy_(torch.tensor(padded))
        key = num_seqs, has_images
        if key not in self._graphs:
            self._graphs[key] = self._capture(num_seqs, has_images)
            _logger.info(
                "Captured a CUDA graph for %d sequences, %s images",
                num_seqs,
                "with" if has_images else "without",
            )
        graph, logits = self._graphs[key]
        graph.replay()
        return logits[: len(inputs)]

    def _capture(self, num_seqs: int, has_images: bool) -> tuple[Any, torch.Tensor]:
        inputs = self._static_inputs[:num_seqs]
        # Warm up on a side stream: libraries allocate their workspaces then, which is forbidden during a capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._forward(inputs, has_images)
        torch.cuda.current_stream().wait_stream(side)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as another model's, may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._forward(inputs, has_images)
        return graph, logits

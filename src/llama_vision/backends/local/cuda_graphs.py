"""CUDA graphs: capture and replay of decode steps and of their sampling.

A decode step of the 11B is a thousand small kernels, which take longer to launch than to run.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from llama_vision.backends.local.sampler import (
    Sampler,
    SamplingFilters,
    draw_noise,
    greedy_token_ids,
    sampled_token_ids,
    sampling_filters,
    sampling_parameters,
    where_sampled,
)

_logger = logging.getLogger("llama_vision")

_Outputs: TypeAlias = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class DecodeOutput:
    """What a decode step computed, valid until the next one.

    Attributes:
        logits: (sequences, vocab_size).
        token_ids: The next tokens, (sequences,), as `tokens_or_errors` reads them; None where the host has to take part.
        failures: Errors of some rows.
    """

    logits: torch.Tensor
    token_ids: torch.Tensor | None
    failures: dict[int, BaseException]


class CudaGraphRunner:
    """One CUDA graph for each batch size, rounded up to a power of two, with and without images, and one for its sampling.

    A graph reads lengths and block tables from the device, where they stay in place, so it serves all that come. The graph
    of a decode step ends with argmax. Where not all sequences are greedy, another follows it at once, one for each set of
    filters; the noise, of which each sequence has a generator of its own, is drawn while the first one runs. Grammars and
    repetition penalties depend on the tokens so far, which the host knows, so such a batch is sampled from its logits.
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
        self._static_parameters = torch.zeros(max_num_seqs, 4, device=device)
        self._static_noise: torch.Tensor | None = None
        self._graphs: dict[tuple[int, bool], tuple[Any, _Outputs]] = {}
        self._sampling_graphs: dict[tuple[int, bool, SamplingFilters], tuple[Any, _Outputs]] = {}
        self._pool: Any = None

    @property
    def num_graphs(self) -> int:
        """Graphs that were captured."""
        return len(self._graphs) + len(self._sampling_graphs)

    def run(
        self, inputs: Sequence[tuple[int, int, int]], samplers: Sequence[Sampler], *, has_images: bool
    ) -> DecodeOutput:
        """Replay the graphs of a decode step, and capture them first where there are none.

        Args:
            inputs: Token id, position, and row of the block tables of each sequence.
            samplers: Theirs.
            has_images: Whether any of them attends to images.
        """
        num_seqs = min(1 << (len(inputs) - 1).bit_length(), self._max_num_seqs)
        padded = [*inputs, *[self._padding] * (num_seqs - len(inputs))]
        self._static_inputs[:num_seqs].copy_(torch.tensor(padded))
        graph, (logits, token_ids) = self._decode_graph(num_seqs, has_images)
        if any(sampler.is_guided or sampler.has_repetition_penalty for sampler in samplers):
            graph.replay()
            return DecodeOutput(logits[: len(inputs)], None, {})
        failures: dict[int, BaseException] = {}
        if (filters := sampling_filters(samplers)) is None:
            graph.replay()
        else:
            noise = self._noise(logits)
            sampling_graph, (token_ids,) = self._sampling_graph(num_seqs, has_images, filters)
            self._static_parameters.zero_()
            self._static_parameters[: len(samplers)].copy_(sampling_parameters(samplers))
            graph.replay()
            failures = draw_noise(noise, samplers)
            sampling_graph.replay()
        return DecodeOutput(logits[: len(inputs)], token_ids[: len(inputs)], failures)

    def _decode_graph(self, num_seqs: int, has_images: bool) -> tuple[Any, _Outputs]:
        def decode() -> _Outputs:
            logits = self._forward(self._static_inputs[:num_seqs], has_images)
            return logits, greedy_token_ids(logits)

        key = num_seqs, has_images
        if key not in self._graphs:
            self._graphs[key] = self._capture(decode)
            _logger.info(
                "Captured a CUDA graph for %d sequences, %s images",
                num_seqs,
                "with" if has_images else "without",
            )
        return self._graphs[key]

    def _sampling_graph(
        self, num_seqs: int, has_images: bool, filters: SamplingFilters
    ) -> tuple[Any, _Outputs]:
        _, (logits, greedy) = self._graphs[num_seqs, has_images]
        parameters, noise = self._static_parameters[:num_seqs], self._noise(logits)[:num_seqs]

        def sample() -> _Outputs:
            sampled = sampled_token_ids(logits.float(), parameters, noise, filters)
            return (where_sampled(sampled, greedy, parameters),)

        key = num_seqs, has_images, filters
        if key not in self._sampling_graphs:
            self._sampling_graphs[key] = self._capture(sample)
            _logger.info("Captured a CUDA graph for sampling %d sequences, %s", num_seqs, filters)
        return self._sampling_graphs[key]

    def _noise(self, logits: torch.Tensor) -> torch.Tensor:
        if self._static_noise is None:
            self._static_noise = logits.new_ones(self._max_num_seqs, logits.shape[1], dtype=torch.float32)
        return self._static_noise

    def _capture(self, work: Callable[[], _Outputs]) -> tuple[Any, _Outputs]:
        # Warm up on a side stream: libraries allocate their workspaces then, which is forbidden during a capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as another model's, may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = work()
        return graph, outputs

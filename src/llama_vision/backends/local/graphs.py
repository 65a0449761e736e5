"""Steps recorded on an NVIDIA GPU: a step of the 11B is a thousand small pieces of work, slower to ask for than to do."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from llama_vision.backends.local.passes import StepShape
from llama_vision.backends.local.slots import Slots

_MOST_RECORDINGS = 64
_SHORTEST_REACH = 256


class Graphs:
    """Recorded steps, one for each shape. Shapes are rounded up, so that there are few."""

    def __init__(
        self, work: Callable[[torch.Tensor, StepShape], torch.Tensor], max_rows: int, device: torch.device
    ) -> None:
        self._work = work
        self._max_rows = max_rows
        self._numbers = torch.zeros(max_rows, 3, dtype=torch.long, device=device)
        self._recordings: dict[StepShape, tuple[Any, torch.Tensor]] = {}
        self._pool: Any = None
        self._growths = 0

    def run(self, numbers: Sequence[tuple[int, int, int]], shape: StepShape, slots: Slots) -> torch.Tensor:
        """Do a step.

        Args:
            numbers: As `passes.step_pass` takes them.
            shape: The shape that is needed.
            slots: What is remembered; where it has moved, everything is recorded anew.

        Returns:
            The scores (rows or more, vocabulary), until the next step.

        """
        shape = rounded(shape, self._max_rows, slots)
        filled = [*numbers, *[(0, 0, 0)] * (shape.rows - len(numbers))]
        self._numbers[: shape.rows].copy_(torch.tensor(filled))
        if self._growths != slots.growths:
            self._recordings.clear()
            self._growths = slots.growths
        if shape not in self._recordings:
            if len(self._recordings) >= _MOST_RECORDINGS:
                self._recordings.clear()
            self._recordings[shape] = self._recorded(shape)
        graph, scores = self._recordings[shape]
        graph.replay()
        return scores

    def _recorded(self, shape: StepShape) -> tuple[Any, torch.Tensor]:
        # Once unrecorded and on a stream of its own: libraries take their memory then, which a recording may not.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._work(self._numbers, shape)
        torch.cuda.current_stream().wait_stream(side)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as those of another model, may go on using the GPU.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            scores = self._work(self._numbers, shape)
        return graph, scores


def rounded(shape: StepShape, max_rows: int, slots: Slots) -> StepShape:
    """Round a shape up, to one that does the work of many."""
    rows = min(_power(shape.rows), max_rows)
    return StepShape(
        rows=rows,
        reach=min(max(_power(shape.reach), _SHORTEST_REACH), slots.words.columns),
        seeing=min(_power(shape.seeing), rows) if shape.seeing else 0,
        columns=slots.pictures.columns if shape.seeing else 0,
        uneven=True,
        mixed=shape.seeing > 0,
    )


def _power(number: int) -> int:
    """Find the next power of two."""
    return 1 << (number - 1).bit_length()

"""Answers many requests at once: they join and leave at every step, and none sees another."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from llama_vision.backends.local.answer import Answer, answer_to
from llama_vision.backends.local.choosing import choose
from llama_vision.backends.local.decoder import Decoder
from llama_vision.backends.local.graphs import Graphs
from llama_vision.backends.local.loading import LoadedModel
from llama_vision.backends.local.passes import StepShape, prompt_passes, step_pass
from llama_vision.backends.local.settings import LocalSettings
from llama_vision.backends.local.slots import Slots
from llama_vision.backends.local.vision import Seen, Vision
from llama_vision.core.errors import LlamaVisionError, LocalModelError
from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest

_PROMPT_WORDS_AT_ONCE = 4096
"""Of prompts that are read together, those that fill up the shorter ones included."""

_FILLED_UP_FOR_NOTHING = 32
"""So few words more are read in the time of none."""


@dataclass(slots=True, eq=False)
class _Row:
    """An answer in the making.

    Attributes:
        answer: The answer.
        position: Where its newest token stands.
        columns: How many columns of pictures it sees.
        token: Its newest token.

    """

    answer: Answer
    position: int
    columns: int
    token: int = 0


class Engine:
    """Works on several answers at once. It belongs to one thread.

    The rows of the slots are the answers in order, without gaps, those with pictures first: so a step works on no more
    than there is, and rows of words alone stay out of the layers that look at pictures.

    Attributes:
        max_len: The most tokens of prompt and reply together.
        vision: Sees pictures.

    """

    def __init__(self, loaded: LoadedModel, settings: LocalSettings) -> None:
        self.max_len = min(loaded.context_window, settings.max_model_len or loaded.context_window)
        self.vision = Vision(loaded, settings.image_cache_bytes)
        self._loaded = loaded
        self._max_rows = settings.max_batch_size
        self._slots = Slots(loaded.network, self._max_rows)
        self._decoder = Decoder(loaded.network, self.max_len)
        self._like = torch.zeros((), dtype=loaded.network.dtype, device=loaded.device)
        self._rows: list[_Row] = []
        self._seeing = 0
        self._graphs: Graphs | None = None
        if loaded.device.type == "cuda":
            torch.cuda.set_device(loaded.device)  # of this thread
            self._graphs = Graphs(self._scores, self._max_rows, loaded.device)

    @property
    def working(self) -> int:
        """How many answers are in the making."""
        return len(self._rows)

    @property
    def free(self) -> int:
        """How many more could be."""
        return self._max_rows - len(self._rows)

    def answer_to(
        self,
        request: ChatRequest,
        emit: Callable[[Event | LlamaVisionError], None],
        cancelled: Callable[[], bool],
    ) -> Answer:
        """Get ready to answer a request; see `answer.answer_to`."""
        return answer_to(
            request, self._loaded, self.vision, max_len=self.max_len, emit=emit, cancelled=cancelled
        )

    @torch.inference_mode()
    def admit(self, answers: Sequence[Answer]) -> None:
        """Read prompts and write the first token of each answer; `step` does the rest.

        Args:
            answers: Not more than `free`.

        """
        for group in _alike(answers):
            self._read_or_fail(group)

    @torch.inference_mode()
    def step(self) -> None:
        """Write the next token of every answer, and let those go that nobody waits for."""
        self._leave(row for row in self._rows if row.answer.cancelled())
        if not self._rows:
            return
        try:
            scores = self._next_scores()
            for row in self._rows:
                row.position += 1
            self._deliver(scores, list(self._rows))
        except Exception as error:  # noqa: BLE001 - it concerns all, and each waits to hear of it
            self.fail(failure_of(error))

    def fail(self, error: LlamaVisionError) -> None:
        """Give up all answers."""
        rows, self._rows, self._seeing = self._rows, [], 0
        for row in rows:
            row.answer.fail(error)

    def _read_or_fail(self, answers: Sequence[Answer]) -> None:
        """Read prompts together; where that fails, each by itself, so that one does not spoil the others."""
        rows = [_Row(answer, len(answer.prompt.ids), 0) for answer in answers]
        try:
            self.vision.see([glimpse.picture for row in rows for glimpse in row.answer.prompt.glimpses])
            self._place(rows)
            scores = self._read([row for row in self._rows if row in rows])
        except Exception as error:  # noqa: BLE001 - whatever it is, someone is waiting to hear of it
            self._leave(rows)
            if len(answers) == 1:
                answers[0].fail(failure_of(error))
                return
            for answer in answers:
                self._read_or_fail([answer])
            return
        for answer in answers:
            answer.start()
        self._deliver(scores, [row for row in self._rows if row in rows])

    def _place(self, rows: Sequence[_Row]) -> None:
        """Give new answers their rows, and what they see of pictures."""
        for row in rows:
            row.columns = sum(one.columns for one in _seen(row))
        self._slots.words.reserve(
            len(self._rows) + len(rows), max(row.position for row in rows), self.max_len
        )
        if columns := max(row.columns for row in rows):
            self._slots.pictures.reserve(self._seeing + sum(row.columns > 0 for row in rows), columns)
        for row in rows:
            place = len(self._rows)
            self._rows.append(row)
            if row.columns:
                if self._seeing < place:
                    self._move(self._seeing, place)
                    self._rows[self._seeing] = row
                self._show(row, self._seeing)
                self._seeing += 1

    def _show(self, row: _Row, place: int) -> None:
        """Put what the answer sees of pictures into its row; pictures out of sight are of no use to it."""
        end = 0
        for seen in _seen(row):
            begin, end = end, end + seen.columns
            for layer in seen.keys:
                self._slots.pictures.keys[layer][place, :, begin:end] = seen.keys[layer]
                self._slots.pictures.values[layer][place, :, begin:end] = seen.values[layer]

    def _read(self, rows: Sequence[_Row]) -> torch.Tensor:
        """Let prompts go through the layers: scores of what follows them (rows, vocabulary)."""
        prompts = [row.answer.prompt for row in rows]
        places = [self._rows.index(row) for row in rows]
        ends = torch.tensor([len(prompt.ids) - 1 for prompt in prompts], device=self._like.device)
        last: torch.Tensor | None = None
        for step in prompt_passes(prompts, places, self._like):
            hidden = self._decoder.hidden(step, self._slots)
            first = step.reach - hidden.shape[1]
            here = ((ends >= first) & (ends < step.reach))[:, None]
            found = hidden[
                torch.arange(len(rows), device=ends.device), (ends - first).clamp(0, hidden.shape[1] - 1)
            ]
            last = found if last is None else found.where(here, last)
        if last is None:
            raise LocalModelError("There is no prompt to read.")
        return self._decoder.logits(last)

    def _next_scores(self) -> torch.Tensor:
        """Let every answer go on by a token: scores of what follows it (rows, vocabulary)."""
        rows, columns = self._rows, [row.columns for row in self._rows[: self._seeing]]
        reach = max(row.position for row in rows) + 1
        self._slots.words.reserve(len(rows), reach, self.max_len)
        numbers = [(row.token, row.position, row.columns) for row in rows]
        shape = StepShape(
            rows=len(rows),
            reach=reach,
            seeing=self._seeing,
            columns=max(columns, default=0),
            uneven=any(row.position + 1 < reach for row in rows),
            mixed=len(set(columns)) > 1,
        )
        if self._graphs is not None:
            try:
                return self._graphs.run(numbers, shape, self._slots)[: len(rows)]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._graphs = None
                warnings.warn(
                    f"Steps can't be recorded on this GPU, so they take longer: {error}", stacklevel=2
                )
        return self._scores(torch.tensor(numbers, device=self._like.device), shape)

    def _scores(self, numbers: torch.Tensor, shape: StepShape) -> torch.Tensor:
        hidden = self._decoder.hidden(step_pass(numbers, shape, self._slots), self._slots)
        return self._decoder.logits(hidden[:, -1])

    def _deliver(self, scores: torch.Tensor, rows: Sequence[_Row]) -> None:
        """Choose a token for each of the rows, and let those go whose answers are over."""
        chosen = choose(scores, [row.answer.chooser for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            if isinstance(token, Exception):
                row.answer.fail(failure_of(token))
                continue
            row.token = token
            try:
                row.answer.take(token)
            except Exception as error:  # noqa: BLE001 - it concerns this answer only
                row.answer.fail(failure_of(error))
        self._leave(row for row in rows if row.answer.over)

    def _leave(self, rows: Iterable[_Row]) -> None:
        """Take answers out, and close the gaps."""
        for row in list(rows):
            if row not in self._rows:
                continue
            gap = self._rows.index(row)
            if gap < self._seeing:
                self._seeing -= 1
                gap = self._move(self._seeing, gap)
            self._move(len(self._rows) - 1, gap)
            self._rows.pop()

    def _move(self, source: int, target: int) -> int:
        """Move a row, and tell where the gap is now."""
        if source != target:
            row = self._rows[target] = self._rows[source]
            self._slots.move(source, target, row.position, row.columns)
        return source


def _alike(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Put prompts of similar lengths together: the shorter ones are filled up, which costs as much as words."""
    groups: list[list[Answer]] = []
    for answer in sorted(answers, key=lambda answer: len(answer.prompt.ids)):
        length = len(answer.prompt.ids)
        if groups:
            shortest = len(groups[-1][0].prompt.ids)
            fits = length * (len(groups[-1]) + 1) <= _PROMPT_WORDS_AT_ONCE
            if fits and length <= 2 * shortest + _FILLED_UP_FOR_NOTHING:
                groups[-1].append(answer)
                continue
        groups.append([answer])
    return groups


def failure_of(error: Exception) -> LlamaVisionError:
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


def _seen(row: _Row) -> list[Seen]:
    """Get the pictures that the answer sees."""
    return [one for glimpse in row.answer.prompt.lasting if (one := glimpse.picture.seen) is not None]

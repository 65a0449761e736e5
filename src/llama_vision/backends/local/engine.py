"""Answers many requests at once: they join and leave at every step, and none sees another."""

import warnings
from collections.abc import Callable, Sequence

import torch

from llama_vision.backends.local.answer import Answer, answer_to
from llama_vision.backends.local.beginnings import Beginnings
from llama_vision.backends.local.choosing import choose
from llama_vision.backends.local.decoder import Decoder
from llama_vision.backends.local.graphs import Graphs
from llama_vision.backends.local.loading import LoadedModel
from llama_vision.backends.local.passes import Piece, StepShape, reading_pass, step_pass
from llama_vision.backends.local.reading import next_words
from llama_vision.backends.local.rows import Row, Rows
from llama_vision.backends.local.settings import LocalSettings
from llama_vision.backends.local.slots import Slots
from llama_vision.backends.local.vision import Vision
from llama_vision.core.errors import LlamaVisionError, LocalModelError
from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest


class Engine:
    """Works on several answers at once. It belongs to one thread.

    A step reads a piece of those prompts that are not read to the end, and writes a token of every other answer. Rows that
    read take part in the writing: what they write has no meaning, and the next word they read is put over it.

    Attributes:
        max_len: The most tokens of prompt and reply together.
        vision: Sees pictures.
        words_read: How many words of prompts went through the layers.

    """

    def __init__(self, loaded: LoadedModel, settings: LocalSettings) -> None:
        self.max_len = min(loaded.context_window, settings.max_model_len or loaded.context_window)
        self.vision = Vision(loaded, settings.image_cache_bytes)
        self._loaded = loaded
        self._max_rows = settings.max_batch_size
        self._slots = Slots(loaded.network, self._max_rows)
        self._decoder = Decoder(loaded.network, self.max_len)
        self._like = torch.zeros((), dtype=loaded.network.dtype, device=loaded.device)
        self._rows = Rows(self._slots)
        self._reading: list[Row] = []
        self._beginnings = Beginnings(settings.prefix_cache_bytes)
        self.words_read = 0
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
        """Take answers in; `step` does the rest.

        Args:
            answers: Not more than `free`.

        """
        rows = [Row(answer) for answer in answers]
        try:
            self._take_in(rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, someone is waiting to hear of it
            self._leave(rows)
            if len(answers) == 1:
                answers[0].fail(failure_of(error))
                return
            for answer in answers:  # so that one does not spoil the others
                self.admit([answer])

    @torch.inference_mode()
    def step(self) -> None:
        """Read on, write the next token of every answer, and let those go that nobody waits for."""
        self._leave([row for row in self._rows if row.answer.cancelled()])
        for group in next_words(self._reading, beside_writing=len(self._reading) < len(self._rows)):
            self._read_or_fail(group)
        if len(self._reading) == len(self._rows):
            return
        try:
            scores = self._next_scores()
            writing = [(place, row) for place, row in enumerate(self._rows) if not row.unread]
            for _, row in writing:
                row.position += 1
            if self._reading:
                scores = scores[[place for place, _ in writing]]
            self._deliver(scores, [row for _, row in writing])
        except Exception as error:  # noqa: BLE001 - it concerns all, and each waits to hear of it
            self.fail(failure_of(error))

    def fail(self, error: LlamaVisionError) -> None:
        """Give up all answers."""
        self._reading = []
        for row in self._rows.clear():
            row.answer.fail(error)

    @property
    def large(self) -> bool:
        """Whether `rest` would give memory back."""
        return self._slots.large and not self._rows

    def rest(self) -> None:
        """Give back the memory that large requests took, if nothing is being done."""
        if not self._rows:
            self._slots.shrink()
            if self._like.is_cuda:
                torch.cuda.empty_cache()

    def _take_in(self, rows: Sequence[Row]) -> None:
        """Give new answers their rows, with what is known of their prompts and what they see of pictures."""
        if not rows:
            return
        known = [self._beginnings.find(row.answer.prompt.words) for row in rows]
        for row, remembered in zip(rows, known, strict=True):
            row.position = 0 if remembered is None else remembered.shape[2]
            row.answer.known = row.position
        self.vision.see(
            [
                glimpse.picture
                for row in rows
                for glimpse in row.answer.prompt.glimpses
                if glimpse.end > row.position
            ]
        )
        longest = max(len(row.answer.prompt.ids) for row in rows)
        self._slots.words.reserve(len(self._rows) + len(rows), longest, self.max_len)
        for row in rows:
            row.columns = sum(seen.columns for seen in row.seen)
        if columns := max(row.columns for row in rows):
            self._slots.pictures.reserve(self._rows.seeing + sum(row.columns > 0 for row in rows), columns)
        for row, remembered in zip(rows, known, strict=True):
            self._rows.add(row)
            self._reading.append(row)
            if remembered is not None:
                self._slots.words.recall(self._rows.place(row), remembered)

    def _read_or_fail(self, group: Sequence[tuple[Row, int]]) -> None:
        """Read on in some prompts together; where that fails, in each by itself, so that one does not spoil the others."""
        pieces = [
            Piece(row.answer.prompt, self._rows.place(row), row.position, row.position + count)
            for row, count in group
        ]
        order = sorted(range(len(group)), key=lambda number: not pieces[number].glimpses)
        pieces, rows = [pieces[number] for number in order], [group[number][0] for number in order]
        try:
            scores = self._read(pieces)
        except Exception as error:  # noqa: BLE001 - as in `admit`
            if len(group) > 1:
                for one in group:
                    self._read_or_fail([one])
                return
            rows[0].answer.fail(failure_of(error))
            self._leave(rows)
            return
        for row, piece in zip(rows, pieces, strict=True):
            row.position = piece.stop
        self._reading = [row for row in self._reading if row.unread]
        ready = [number for number, row in enumerate(rows) if not row.unread]
        for number in ready:
            rows[number].answer.start()
        if ready:
            self._deliver(scores[ready], [rows[number] for number in ready])

    def _read(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Let pieces of prompts go through the layers: scores of what follows them (rows, vocabulary)."""
        step = reading_pass(pieces, self.max_len, self._like)
        self._slots.words.reserve(len(self._rows), step.reach, self.max_len)
        hidden = self._decoder.hidden(step, self._slots)
        lengths = [piece.stop - piece.start for piece in pieces]
        self.words_read += sum(lengths)
        last = torch.tensor(lengths, device=self._like.device) - 1
        return self._decoder.logits(hidden[torch.arange(len(last), device=last.device), last])

    def _next_scores(self) -> torch.Tensor:
        """Let every answer go on by a token: scores of what follows it (rows, vocabulary)."""
        rows = [*self._rows]
        columns = [row.columns for row in rows[: self._rows.seeing]]
        reach = max(row.position for row in rows) + 1
        self._slots.words.reserve(len(rows), reach, self.max_len)
        numbers = [(row.written[-1] if row.written else 0, row.position, row.columns) for row in rows]
        shape = StepShape(
            rows=len(rows),
            reach=reach,
            seeing=self._rows.seeing,
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

    def _deliver(self, scores: torch.Tensor, rows: Sequence[Row]) -> None:
        """Choose a token for each of the rows, and let those go whose answers are over."""
        chosen = choose(scores, [row.answer.chooser for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            if isinstance(token, Exception):
                row.answer.fail(failure_of(token))
                continue
            row.written.append(token)
            try:
                row.answer.take(token)
            except Exception as error:  # noqa: BLE001 - it concerns this answer only
                row.answer.fail(failure_of(error))
                continue
            if row.answer.over:
                self._keep(row)
        self._leave([row for row in rows if row.answer.over])

    def _keep(self, row: Row) -> None:
        """Keep what is remembered of a conversation, for its next turn."""
        words = [*row.answer.prompt.words, *row.written][: row.position]
        place = self._rows.place(row)
        try:
            self._beginnings.keep(words, lambda: self._slots.words.remembered(place, row.position))
        except torch.OutOfMemoryError:  # it is not worth an answer
            self._beginnings.clear()

    def _leave(self, rows: Sequence[Row]) -> None:
        """Take answers out."""
        self._rows.leave(rows)
        self._reading = [row for row in self._reading if row not in rows]


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

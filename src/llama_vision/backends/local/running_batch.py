"""The answers in the making, in the order of the slots' rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from llama_vision.backends.local.kv_cache import KVCache
from llama_vision.backends.local.sequence import Answer
from llama_vision.backends.local.vision_encoder import CrossAttentionKV


@dataclass(slots=True, eq=False)
class Row:
    """An answer in the making, or one whose prompt is still being read.

    Attributes:
        answer: The answer.
        num_computed_tokens: How many of its words stand in the slots, which is where the next one goes.
        cross_kv_len: How many columns of images it sees.
        output_token_ids: Its tokens, of which the newest stands nowhere yet.

    """

    answer: Answer
    num_computed_tokens: int = 0
    cross_kv_len: int = 0
    output_token_ids: list[int] = field(default_factory=list[int])

    @property
    def num_remaining_prompt_tokens(self) -> int:
        """How many words of its prompt are to be read before anything can be written."""
        return max(len(self.answer.prompt.token_ids) - self.num_computed_tokens, 0)

    @property
    def encoded_images(self) -> list[CrossAttentionKV]:
        """The images that the answer sees."""
        return [
            one for glimpse in self.answer.prompt.output_image_spans if (one := glimpse.image.kv) is not None
        ]


class RunningBatch:
    """Who is in which row of the slots: without gaps, those with images first.

    So a step works on no more than there is, and rows of words alone stay out of the layers that look at images.

    Attributes:
        num_image_seqs: How many have images.

    """

    __slots__ = ("_rows", "_slots", "num_image_seqs")

    def __init__(self, slots: KVCache) -> None:
        self._slots = slots
        self._rows: list[Row] = []
        self.num_image_seqs = 0

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def row_of(self, row: Row) -> int:
        """Tell where a row is."""
        return self._rows.index(row)

    def add(self, row: Row) -> None:
        """Give an answer a row, for which there is room, and put what it sees of images there.

        Images out of its sight are of no use to it.
        """
        place = len(self._rows)
        self._rows.append(row)
        if not row.cross_kv_len:
            return
        if self.num_image_seqs < place:
            self._move(self.num_image_seqs, place)
            self._rows[self.num_image_seqs] = row
        end = 0
        for seen in row.encoded_images:
            begin, end = end, end + seen.num_vision_tokens
            for layer in seen.keys:
                self._slots.cross_attention.keys[layer][self.num_image_seqs, :, begin:end] = seen.keys[layer]
                self._slots.cross_attention.values[layer][self.num_image_seqs, :, begin:end] = seen.values[
                    layer
                ]
        self.num_image_seqs += 1

    def remove(self, rows: Iterable[Row]) -> None:
        """Take answers out, where they are in, and close the gaps."""
        for row in list(rows):
            if row not in self._rows:
                continue
            gap = self.row_of(row)
            if gap < self.num_image_seqs:
                self.num_image_seqs -= 1
                gap = self._move(self.num_image_seqs, gap)
            self._move(len(self._rows) - 1, gap)
            self._rows.pop()

    def clear(self) -> list[Row]:
        """Take all out, and tell who they were."""
        rows, self._rows, self.num_image_seqs = self._rows, [], 0
        return rows

    def _move(self, source: int, target: int) -> int:
        """Move a row, and tell where the gap is now."""
        if source != target:
            row = self._rows[target] = self._rows[source]
            self._slots.move(source, target, row.num_computed_tokens, row.cross_kv_len)
        return source

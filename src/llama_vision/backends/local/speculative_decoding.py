"""Speculative decoding without a draft model: several tokens of a sequence in one forward pass.

Draft tokens are those that the grammar forces (jump-forward decoding), or, of greedy sequences, those that once followed
the same tokens (prompt lookup decoding). Each is sampled as it would be without: one that differs ends the draft.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # see `sequence.py`
    import torch

MIN_DRAFT_TOKENS = 3
"""Shorter drafts save no time, which was measured with the tiny model on a CPU."""

_MAX_LOOKUP_TOKENS = 8
_MAX_LOOKUP_SEQS = 4
_NGRAM_SIZE = 3
_MAX_BACKOFF = 32


def pays_prompt_lookup(device: "torch.device", num_seqs: int) -> bool:
    """Whether prompt lookup was measured to pay: on a CPU, for a few sequences. On a GPU it was never tried."""
    return device.type == "cpu" and num_seqs <= _MAX_LOOKUP_SEQS


class PromptLookup:
    """Proposes the tokens that followed the last ones where they stood before, in the prompt or the output.

    After drafts that did not save a forward pass, it proposes none for a while.
    """

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # of each n-gram, where it last stood
        self._backoff = self._num_paused = 0

    def propose(self, prompt_token_ids: Sequence[int], output_token_ids: Sequence[int]) -> list[int]:
        """Propose the next tokens, possibly none. Each call has the tokens of the last one, and more."""
        self._extend(prompt_token_ids, output_token_ids)
        if self._num_paused:
            self._num_paused -= 1
            return []
        start = self._ends.get(tuple(self._token_ids[-_NGRAM_SIZE:]))
        return [] if start is None else self._token_ids[start : start + _MAX_LOOKUP_TOKENS]

    def record(self, num_accepted: int) -> None:
        """Record how many tokens of the last draft were right."""
        is_useful = num_accepted >= MIN_DRAFT_TOKENS
        self._backoff = 0 if is_useful else min(2 * self._backoff + 1, _MAX_BACKOFF)
        self._num_paused = self._backoff

    def _extend(self, prompt_token_ids: Sequence[int], output_token_ids: Sequence[int]) -> None:
        tokens, known = self._token_ids, len(self._token_ids)
        num_prompt = len(prompt_token_ids)
        tokens += prompt_token_ids if not known else ()
        tokens += output_token_ids[max(known - num_prompt, 0) :]
        # The last n-gram is the one to be looked up.
        for end in range(max(known, _NGRAM_SIZE), len(tokens)):
            self._ends[tuple(tokens[end - _NGRAM_SIZE : end])] = end

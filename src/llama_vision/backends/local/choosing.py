"""Which token comes next, for each row by its own rules."""

from collections.abc import Sequence
from typing import Any

import torch

from llama_vision.backends.local.constrain import Constraint, unpacked
from llama_vision.core.request import Sampling

_BARRED = float("-inf")
_USUAL_TOP_K = 50
"""Transformers' own, where neither the user nor the model says anything (GenerationMixin, 5.17 and 5.23)."""


class Chooser:
    """The rules of one answer, and its luck, which nothing else in the process or the batch has a part in.

    Attributes:
        greedy: Whether the likeliest token is taken.
        temperature: The scores are divided by it.
        top_k: Choose among so many; 0 means all.
        top_p: Choose among the likeliest that together have this probability.
        min_p: Leave out what is less likely than this share of the likeliest.

    """

    __slots__ = (
        "_luck",
        "_penalty",
        "_written",
        "constraint",
        "greedy",
        "min_p",
        "temperature",
        "top_k",
        "top_p",
    )

    def __init__(
        self,
        sampling: Sampling,
        own: Sampling | None,
        constraint: Constraint | None,
        written: Sequence[int],
        device: torch.device,
    ) -> None:
        """Take the user's wishes, and the model's own settings where there are none.

        Args:
            sampling: The wishes.
            own: The model's own; None where it would take the likeliest token.
            constraint: What the answer has to look like.
            written: The tokens of the prompt.
            device: Where the scores will be.

        """
        usual = own or Sampling(temperature=1.0)
        self.greedy = sampling.temperature == 0 or (sampling.temperature is None and own is None)
        self.temperature = _first(sampling.temperature, usual.temperature, 1.0)
        self.top_k = int(_first(sampling.top_k, usual.top_k, _USUAL_TOP_K))
        self.top_p = _first(sampling.top_p, usual.top_p, 1.0)
        self.min_p = _first(sampling.min_p, usual.min_p, 0.0)
        self.constraint = constraint
        self._penalty = sampling.repetition_penalty
        self._written: torch.Tensor | None = None
        if self._penalty is not None:
            self._written = torch.tensor(sorted(set(written)), device=device)
        self._luck: torch.Generator | None = None
        if not self.greedy:
            self._luck = torch.Generator(device)
            if sampling.seed is None:
                self._luck.seed()
            else:
                self._luck.manual_seed(sampling.seed)

    @property
    def plain(self) -> bool:
        """Whether the likeliest token that is allowed is right as it is."""
        return self.greedy and self._penalty is None

    def limited(self, scores: torch.Tensor) -> torch.Tensor:
        """Make what stands already less likely: (vocabulary,) -> the same."""
        if self._penalty is not None and self._written is not None:
            # `<|image|>` may stand in a prompt and has no score.
            written = self._written[self._written < len(scores)]
            standing = scores[written]
            lowered = torch.where(standing < 0, standing * self._penalty, standing / self._penalty)
            scores = scores.index_copy(0, written, lowered)
        return scores

    def luck(self, scores: torch.Tensor) -> torch.Tensor:
        """Draw a number for each token, so that what is barred does not change how the others fare."""
        return torch.empty_like(scores).exponential_(generator=self._luck)

    def write(self, token: int) -> None:
        """Take note of what was chosen."""
        if self._written is not None:
            self._written = torch.cat((self._written, self._written.new_tensor([token])))


def choose(scores: torch.Tensor, choosers: Sequence[Chooser]) -> list[int | Exception]:
    """Choose a token for each row.

    Args:
        scores: What the network says (rows, vocabulary).
        choosers: The rules of each row.

    Returns:
        For each row a token, or why none could be chosen.

    """
    failures: dict[int, Exception] = {}
    scores = _barred(scores, choosers, failures)
    likeliest = scores.argmax(-1)
    for row, chooser in enumerate(choosers):
        if chooser.plain or row in failures:
            continue
        try:
            limited = chooser.limited(scores[row].float())
            likeliest[row] = limited.argmax() if chooser.greedy else _drawn(limited, chooser)
        except Exception as error:  # noqa: BLE001 - it concerns one row, and the others go on
            failures[row] = error
    return [failures.get(row, token) for row, token in enumerate(_numbers(likeliest))]


def _barred(
    scores: torch.Tensor, choosers: Sequence[Chooser], failures: dict[int, Exception]
) -> torch.Tensor:
    """Bar what constraints don't allow, in all rows at once; on a GPU the network is still at work meanwhile."""
    masks: dict[int, bytes] = {}
    for row, chooser in enumerate(choosers):
        if chooser.constraint is not None and chooser.constraint.active:
            try:
                masks[row] = chooser.constraint.mask()
            except Exception as error:  # noqa: BLE001 - as in `choose`
                failures[row] = error
    if not masks:
        return scores
    barred = torch.as_tensor(~unpacked([*masks.values()], scores.shape[1])).to(scores.device)
    if len(masks) == len(scores):
        return scores.masked_fill(barred, _BARRED)
    rows = torch.tensor([*masks], device=scores.device)
    return scores.index_copy(0, rows, scores[rows].masked_fill(barred, _BARRED))


def _drawn(scores: torch.Tensor, chooser: Chooser) -> torch.Tensor:
    """Choose by chance, in the order of filters that transformers has."""
    scores = scores / chooser.temperature
    if 0 < chooser.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(chooser.top_k).values[-1], _BARRED)
    if chooser.top_p < 1:
        shares, order = scores.softmax(-1).sort(descending=True)
        out = shares.cumsum(-1) - shares >= chooser.top_p
        out[0] = False
        scores = scores.masked_fill(torch.empty_like(out).scatter(0, order, out), _BARRED)
    shares = scores.softmax(-1)
    if chooser.min_p > 0:
        shares = shares.where(shares >= chooser.min_p * shares.max(), 0.0)
    return (shares / chooser.luck(shares)).argmax()


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _numbers(tensor: Any) -> list[int]:
    """Wait for the device; torch leaves this untyped."""
    return tensor.tolist()

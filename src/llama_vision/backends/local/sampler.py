"""Which token comes next, for each row by its own rules."""

from collections.abc import Sequence
from typing import Any

import torch

from llama_vision.backends.local.guided_decoding import GrammarMatcher, unpack_bitmask
from llama_vision.core.request import SamplingParams

_NEG_INF = float("-inf")
_DEFAULT_TOP_K = 50
"""Transformers' own, where neither the user nor the model says anything (GenerationMixin, 5.17 and 5.23)."""


class Sampler:
    """The rules of one answer, and its luck, which nothing else in the process or the batch has a part in.

    Attributes:
        greedy: Whether the likeliest token is taken.
        temperature: The scores are divided by it.
        top_k: Choose among so many; 0 means all.
        top_p: Choose among the likeliest that together have this probability.
        min_p: Leave out what is less likely than this share of the likeliest.

    """

    __slots__ = (
        "_generator",
        "_repetition_penalty",
        "_seen_token_ids",
        "constraint",
        "greedy",
        "min_p",
        "temperature",
        "top_k",
        "top_p",
    )

    def __init__(
        self,
        sampling: SamplingParams,
        model_defaults: SamplingParams | None,
        constraint: GrammarMatcher | None,
        written: Sequence[int],
        device: torch.device,
    ) -> None:
        """Take the user's wishes, and the model's own settings where there are none.

        Args:
            sampling: The wishes.
            model_defaults: The model's own; None where it would take the likeliest token.
            constraint: What the answer has to look like.
            written: The tokens of the prompt.
            device: Where the scores will be.

        """
        usual = model_defaults or SamplingParams(temperature=1.0)
        self.greedy = sampling.temperature == 0 or (sampling.temperature is None and model_defaults is None)
        self.temperature = _first_set(sampling.temperature, usual.temperature, 1.0)
        self.top_k = int(_first_set(sampling.top_k, usual.top_k, _DEFAULT_TOP_K))
        self.top_p = _first_set(sampling.top_p, usual.top_p, 1.0)
        self.min_p = _first_set(sampling.min_p, usual.min_p, 0.0)
        self.constraint = constraint
        self._repetition_penalty = sampling.repetition_penalty
        self._seen_token_ids: torch.Tensor | None = None
        if self._repetition_penalty is not None:
            self._seen_token_ids = torch.tensor(sorted(set(written)), device=device)
        self._generator: torch.Generator | None = None
        if not self.greedy:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    @property
    def is_pure_greedy(self) -> bool:
        """Whether the likeliest token that is allowed is right as it is."""
        return self.greedy and self._repetition_penalty is None

    def apply_repetition_penalty(self, logits: torch.Tensor) -> torch.Tensor:
        """Make what stands already less likely: (vocabulary,) -> the same."""
        if self._repetition_penalty is not None and self._seen_token_ids is not None:
            # `<|image|>` may stand in a prompt and has no score.
            written = self._seen_token_ids[self._seen_token_ids < len(logits)]
            standing = logits[written]
            lowered = torch.where(
                standing < 0, standing * self._repetition_penalty, standing / self._repetition_penalty
            )
            logits = logits.index_copy(0, written, lowered)
        return logits

    def exponential_noise(self, scores: torch.Tensor) -> torch.Tensor:
        """Draw a number for each token, so that what is barred does not change how the others fare."""
        return torch.empty_like(scores).exponential_(generator=self._generator)

    def record_token(self, token: int) -> None:
        """Take note of what was chosen."""
        if self._seen_token_ids is not None:
            self._seen_token_ids = torch.cat((self._seen_token_ids, self._seen_token_ids.new_tensor([token])))


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | Exception]:
    """Choose a token for each row.

    Args:
        logits: What the network says (rows, vocabulary).
        samplers: The rules of each row.

    Returns:
        For each row a token, or why none could be chosen.

    """
    failures: dict[int, Exception] = {}
    logits = _apply_grammar_masks(logits, samplers, failures)
    likeliest = logits.argmax(-1)
    for row, chooser in enumerate(samplers):
        if chooser.is_pure_greedy or row in failures:
            continue
        try:
            limited = chooser.apply_repetition_penalty(logits[row].float())
            likeliest[row] = limited.argmax() if chooser.greedy else _sample_filtered(limited, chooser)
        except Exception as error:  # noqa: BLE001 - it concerns one row, and the others go on
            failures[row] = error
    return [failures.get(row, token) for row, token in enumerate(_to_list(likeliest))]


def _apply_grammar_masks(
    logits: torch.Tensor, samplers: Sequence[Sampler], failures: dict[int, Exception]
) -> torch.Tensor:
    """Bar what constraints don't allow, in all rows at once; on a GPU the network is still at work meanwhile."""
    masks: dict[int, bytes] = {}
    for row, chooser in enumerate(samplers):
        if chooser.constraint is not None and chooser.constraint.active:
            try:
                masks[row] = chooser.constraint.token_bitmask()
            except Exception as error:  # noqa: BLE001 - as in `sample`
                failures[row] = error
    if not masks:
        return logits
    barred = torch.as_tensor(~unpack_bitmask([*masks.values()], logits.shape[1])).to(logits.device)
    if len(masks) == len(logits):
        return logits.masked_fill(barred, _NEG_INF)
    rows = torch.tensor([*masks], device=logits.device)
    return logits.index_copy(0, rows, logits[rows].masked_fill(barred, _NEG_INF))


def _sample_filtered(logits: torch.Tensor, chooser: Sampler) -> torch.Tensor:
    """Choose by chance, in the order of filters that transformers has."""
    logits = logits / chooser.temperature
    if 0 < chooser.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(chooser.top_k).values[-1], _NEG_INF)
    if chooser.top_p < 1:
        probs, order = logits.softmax(-1).sort(descending=True)
        out = probs.cumsum(-1) - probs >= chooser.top_p
        out[0] = False
        logits = logits.masked_fill(torch.empty_like(out).scatter(0, order, out), _NEG_INF)
    probs = logits.softmax(-1)
    if chooser.min_p > 0:
        probs = probs.where(probs >= chooser.min_p * probs.max(), 0.0)
    return (probs / chooser.exponential_noise(probs)).argmax()


def _first_set(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _to_list(tensor: Any) -> list[int]:
    """Wait for the device; torch leaves this untyped."""
    return tensor.tolist()

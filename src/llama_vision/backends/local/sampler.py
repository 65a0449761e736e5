"""Sampler: the next token of each sequence, by its own sampling parameters."""

from collections.abc import Sequence
from typing import Any

import torch

from llama_vision.backends.local.guided_decoding import GrammarMatcher, unpack_bitmask
from llama_vision.core.errors import LocalModelError
from llama_vision.core.request import SamplingParams

_NEG_INF = float("-inf")
_DEFAULT_TOP_K = 50
"""Transformers' own, where neither the user nor the model says anything (GenerationMixin, 5.17 and 5.23)."""

_MIN_DIVISOR = 1e-5
"""Of logits, which would overflow otherwise: a lower temperature is greedy decoding, as in vLLM (`_SAMPLING_EPS`), and a
lower repetition penalty is this one."""

_NO_TOKEN = -1

_SEED_RANGE = 2**64
"""Torch takes 64 bits; a seed may have any size, such as that of a hash, and is reduced as torch does it with negative ones."""


class Sampler:
    """Sampling parameters, random generator and grammar of one sequence; independent of the rest of the batch.

    The attributes are those of `SamplingParams`, with defaults filled in; a `top_k` of 0 means all tokens.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        model_defaults: SamplingParams | None,
        grammar_matcher: GrammarMatcher | None,
        prompt_token_ids: Sequence[int],
        device: torch.device,
    ) -> None:
        """Take the user's parameters, and the model's where there are none; a model without defaults is greedy."""
        defaults = model_defaults or SamplingParams(temperature=1.0)
        self.temperature = _first_set(sampling.temperature, defaults.temperature, 1.0)
        is_default_greedy = sampling.temperature is None and model_defaults is None
        self.greedy = is_default_greedy or self.temperature < _MIN_DIVISOR
        self.top_k = int(_first_set(sampling.top_k, defaults.top_k, _DEFAULT_TOP_K))
        self.top_p = _first_set(sampling.top_p, defaults.top_p, 1.0)
        self.min_p = _first_set(sampling.min_p, defaults.min_p, 0.0)
        self.grammar_matcher = grammar_matcher
        self._repetition_penalty: float | None = None
        self._seen_token_ids: torch.Tensor | None = None
        if sampling.repetition_penalty is not None:
            self._repetition_penalty = max(sampling.repetition_penalty, _MIN_DIVISOR)
            self._seen_token_ids = torch.tensor(sorted(set(prompt_token_ids)), device=device)
        self._generator: torch.Generator | None = None
        if not self.greedy:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed % _SEED_RANGE)

    @property
    def is_pure_greedy(self) -> bool:
        """Whether argmax of the masked logits is the next token."""
        return self.greedy and self._repetition_penalty is None

    @property
    def is_guided(self) -> bool:
        """Whether a grammar may forbid tokens from here on."""
        return self.grammar_matcher is not None and self.grammar_matcher.is_active

    def apply_repetition_penalty(self, logits: torch.Tensor) -> torch.Tensor:
        """Repetition penalty on prompt and output tokens, as in transformers: (vocab_size,) -> the same."""
        penalty = self._repetition_penalty
        if penalty is None or self._seen_token_ids is None:
            return logits
        # A prompt may hold `<|image|>`, which has no logit.
        token_ids = self._seen_token_ids[self._seen_token_ids < len(logits)]
        seen_logits = logits[token_ids]
        penalized = torch.where(seen_logits < 0, seen_logits * penalty, seen_logits / penalty)
        return logits.index_copy(0, token_ids, penalized)

    def exponential_noise(self, probs: torch.Tensor) -> torch.Tensor:
        """Noise for exponential-race (Gumbel-max) sampling: one draw per token, so a mask does not shift the others'."""
        return torch.empty_like(probs).exponential_(generator=self._generator)

    def accept_token(self, token_id: int) -> bool:
        """Record a sampled token for the repetition penalty and the grammar.

        Returns:
            Whether the grammar is complete, so that nothing can follow.

        Raises:
            LocalModelError: The grammar does not allow the token.
        """
        if self._seen_token_ids is not None:
            new = self._seen_token_ids.new_tensor([token_id])
            self._seen_token_ids = torch.cat((self._seen_token_ids, new))
        if self.grammar_matcher is None:
            return False
        self.grammar_matcher.accept_token(token_id)
        return self.grammar_matcher.is_terminated


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | BaseException]:
    """Sample the next token of each sequence: logits (batch, vocab_size) -> a token id, or an error, for each row."""
    failures: dict[int, BaseException] = {}
    is_finite = logits.sum(-1, dtype=torch.float32).isfinite()  # NaN and infinity make the sum one of them
    logits = _apply_grammar_masks(logits, samplers, failures)
    token_ids = logits.argmax(-1)
    for row, sampler in enumerate(samplers):
        if sampler.is_pure_greedy or row in failures:
            continue
        try:
            row_logits = sampler.apply_repetition_penalty(logits[row].float())
            token_ids[row] = row_logits.argmax() if sampler.greedy else _sample_filtered(row_logits, sampler)
        except BaseException as error:  # noqa: BLE001 - it concerns one row only
            failures[row] = error
    sampled: list[int | BaseException] = []
    for row, token_id in enumerate(_to_list(token_ids.where(is_finite, _NO_TOKEN))):
        sampled.append(_non_finite_error() if token_id == _NO_TOKEN else failures.get(row, token_id))
    return sampled


def _non_finite_error() -> LocalModelError:
    return LocalModelError(
        "The model's logits are NaN or infinite, so there is no next token. Either its weights are damaged, or they "
        "overflow: try LocalSettings(dtype='bfloat16') or 'float32' in place of 'float16'."
    )


def _apply_grammar_masks(
    logits: torch.Tensor, samplers: Sequence[Sampler], failures: dict[int, BaseException]
) -> torch.Tensor:
    """Apply the grammars' token bitmasks to all rows at once; on a GPU the forward pass still runs meanwhile."""
    bitmasks: dict[int, bytes] = {}
    for row, sampler in enumerate(samplers):
        if sampler.grammar_matcher is not None and sampler.is_guided:
            try:
                bitmasks[row] = sampler.grammar_matcher.token_bitmask()
            except BaseException as error:  # noqa: BLE001 - as in `sample`
                failures[row] = error
    if not bitmasks:
        return logits
    forbidden = torch.as_tensor(~unpack_bitmask([*bitmasks.values()], logits.shape[1])).to(logits.device)
    if len(bitmasks) == len(logits):
        return logits.masked_fill(forbidden, _NEG_INF)
    rows = torch.tensor([*bitmasks], device=logits.device)
    return logits.index_copy(0, rows, logits[rows].masked_fill(forbidden, _NEG_INF))


def _sample_filtered(logits: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Temperature, top-k, top-p, min-p in the order of transformers' warpers, then sample: (vocab_size,) -> ()."""
    logits = logits / sampler.temperature
    if 0 < sampler.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(sampler.top_k).values[-1], _NEG_INF)
    if sampler.top_p < 1:
        probs, order = logits.softmax(-1).sort(descending=True)
        removed = probs.cumsum(-1) - probs >= sampler.top_p
        removed[0] = False
        logits = logits.masked_fill(torch.empty_like(removed).scatter(0, order, removed), _NEG_INF)
    probs = logits.softmax(-1)
    if sampler.min_p > 0:
        probs = probs.where(probs >= sampler.min_p * probs.max(), 0.0)
    return (probs / sampler.exponential_noise(probs)).argmax()


def _first_set(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _to_list(tensor: Any) -> list[int]:
    """Wait for the device; torch leaves this untyped."""
    return tensor.tolist()

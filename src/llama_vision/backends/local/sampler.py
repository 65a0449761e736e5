"""Sampler: the next token of each sequence, by its own sampling parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from llama_vision.backends.local.guided_decoding import GrammarMatcher, unpack_bitmask
from llama_vision.core.errors import LocalModelError
from llama_vision.core.request import SamplingParams

_INF, _NEG_INF = float("inf"), float("-inf")
_DEFAULT_TOP_K = 50
"""Transformers' own, where neither the user nor the model says anything (GenerationMixin, 5.17 and 5.23)."""

_MIN_DIVISOR = 1e-5
"""Of logits, which would overflow otherwise: a lower temperature is greedy decoding, as in vLLM (`_SAMPLING_EPS`), and a
lower repetition penalty is this one."""

_NO_TOKEN = -1
"""In place of a token id where logits are NaN or infinite."""

_MAX_TOP_K = 2**24
"""More than any vocabulary has, and exact in float32."""

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
        return self.greedy and not self.has_repetition_penalty

    @property
    def has_repetition_penalty(self) -> bool:
        """Whether logits depend on the tokens so far."""
        return self._repetition_penalty is not None

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

    def exponential_noise(self, noise: torch.Tensor) -> torch.Tensor:
        """Draw noise for exponential-race (Gumbel-max) sampling in place: one draw per token, so a mask does not shift the others'."""
        return noise if self._generator is None else noise.exponential_(generator=self._generator)

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


class SamplingFilters(NamedTuple):
    """Which filters any sampler of a batch takes: all of sampling that is decided on the host.

    Attributes:
        max_top_k: The largest top_k, rounded up to a power of two; 0 for none.
        has_top_p: Whether there is a top_p.
        has_min_p: Whether there is a min_p.
    """

    max_top_k: int
    has_top_p: bool
    has_min_p: bool


def sampling_filters(samplers: Sequence[Sampler]) -> SamplingFilters | None:
    """Get the filters of a batch; None where all are greedy."""
    sampled = [sampler for sampler in samplers if not sampler.greedy]
    if not sampled:
        return None
    top_k = max(min(max(sampler.top_k, 0), _MAX_TOP_K) for sampler in sampled)
    return SamplingFilters(
        max_top_k=1 << (top_k - 1).bit_length() if top_k else 0,
        has_top_p=any(sampler.top_p < 1 for sampler in sampled),
        has_min_p=any(sampler.min_p > 0 for sampler in sampled),
    )


def sampling_parameters(samplers: Sequence[Sampler]) -> torch.Tensor:
    """Temperature, top-k, top-p and min-p of a batch: (batch, 4), float32, on the CPU.

    A temperature of 0 stands for argmax, a top_k of 0 and a top_p of infinity for all tokens.
    """
    rows = [
        (0.0, 0.0, _INF, 0.0)
        if sampler.greedy
        else (
            sampler.temperature,
            max(0, min(sampler.top_k, _MAX_TOP_K)),
            sampler.top_p if sampler.top_p < 1 else _INF,
            sampler.min_p,
        )
        for sampler in samplers
    ]
    return torch.tensor(rows, dtype=torch.float32)


def draw_noise(noise: torch.Tensor, samplers: Sequence[Sampler]) -> dict[int, BaseException]:
    """Draw each sampler's noise into its row of (batch, vocab_size): the errors of those that fail, by row."""
    failures: dict[int, BaseException] = {}
    for row, sampler in enumerate(samplers):
        try:
            sampler.exponential_noise(noise[row])
        except BaseException as error:  # noqa: BLE001 - it concerns one row only
            failures[row] = error
    return failures


def greedy_token_ids(logits: torch.Tensor) -> torch.Tensor:
    """Argmax, and -1 where logits are NaN or infinite: (batch, vocab_size) -> (batch,)."""
    return logits.argmax(-1).where(_is_finite(logits), _NO_TOKEN)


def sampled_token_ids(
    logits: torch.Tensor, parameters: torch.Tensor, noise: torch.Tensor, filters: SamplingFilters
) -> torch.Tensor:
    """Temperature, top-k, top-p, min-p in the order of transformers' warpers, then sample.

    Nothing here waits for the device or depends on a value there, so a CUDA graph can capture it.

    Args:
        logits: (batch, vocab_size), float32.
        parameters: See `sampling_parameters`.
        noise: See `Sampler.exponential_noise`, (batch, vocab_size).
        filters: Those that any row takes.

    Returns:
        (batch,); of greedy rows anything.
    """
    temperature, top_k, top_p, min_p = parameters[..., None].unbind(1)
    logits = logits / temperature
    if filters.max_top_k:
        largest = logits.topk(min(filters.max_top_k, logits.shape[1])).values
        index = (top_k.long() - 1).clamp(0, largest.shape[1] - 1)
        least = largest.gather(1, index).masked_fill(top_k == 0, _NEG_INF)
        logits = logits.masked_fill(logits < least, _NEG_INF)
    if filters.has_top_p:
        probs, order = logits.softmax(-1).sort(descending=True)
        removed = probs.cumsum(-1) - probs >= top_p
        removed[:, 0] = False
        logits = logits.masked_fill(torch.empty_like(removed).scatter(1, order, removed), _NEG_INF)
    probs = logits.softmax(-1)
    if filters.has_min_p:
        probs = probs.where(probs >= min_p * probs.amax(-1, keepdim=True), 0.0)
    return (probs / noise).argmax(-1)


def where_sampled(sampled: torch.Tensor, greedy: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """Choose sampled token ids for rows that are not greedy and whose argmax is a token: (batch,) -> (batch,)."""
    return sampled.where((parameters[:, 0] > 0) & (greedy != _NO_TOKEN), greedy)


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | BaseException]:
    """Sample the next token of each sequence: logits (batch, vocab_size) -> a token id, or an error, for each row."""
    failures: dict[int, BaseException] = {}
    is_finite = _is_finite(logits)
    logits = _apply_grammar_masks(logits, samplers, failures)
    token_ids = logits.argmax(-1)
    others = {row: one for row, one in enumerate(samplers) if not (one.is_pure_greedy or row in failures)}
    if others:
        rows = list(others)
        try:
            token_ids[rows] = _sample_rows(logits[rows].float(), others, failures)
        except BaseException as error:  # noqa: BLE001 - it concerns these rows only
            failures |= dict.fromkeys(rows, error)
    return tokens_or_errors(token_ids.where(is_finite, _NO_TOKEN), failures)


def tokens_or_errors(
    token_ids: torch.Tensor, failures: Mapping[int, BaseException]
) -> list[int | BaseException]:
    """Wait for the device: a token id, or an error, for each row."""
    return [
        _non_finite_error() if token_id == _NO_TOKEN else failures.get(row, token_id)
        for row, token_id in enumerate(_to_list(token_ids))
    ]


def _is_finite(logits: torch.Tensor) -> torch.Tensor:
    return logits.sum(-1, dtype=torch.float32).isfinite()  # NaN and infinity make the sum one of them


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


def _sample_rows(
    logits: torch.Tensor, samplers: Mapping[int, Sampler], failures: dict[int, BaseException]
) -> torch.Tensor:
    """Sample some rows of a batch by their own samplers: (rows, vocab_size) -> (rows,)."""
    rows, some = list(samplers), list(samplers.values())
    for index, sampler in enumerate(some):
        if sampler.has_repetition_penalty:
            logits[index] = sampler.apply_repetition_penalty(logits[index])
    if (filters := sampling_filters(some)) is None:
        return logits.argmax(-1)
    noise = torch.empty_like(logits)
    failures |= {rows[index]: error for index, error in draw_noise(noise, some).items()}
    parameters = sampling_parameters(some).to(logits.device)
    sampled = sampled_token_ids(logits, parameters, noise, filters)
    return where_sampled(sampled, logits.argmax(-1), parameters)


def _first_set(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _to_list(tensor: Any) -> list[int]:
    """Wait for the device; torch leaves this untyped."""
    return tensor.tolist()

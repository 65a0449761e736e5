"""Prefill scheduler: a token budget per step, so that a long prompt delays neither decode nor shorter prompts."""

from collections import abc

from llama_vision.backends.local.sequence import Sequence

_PREFILL_BUDGET_BESIDE_DECODE = 256
"""Prefill tokens between two decode steps. With the 11B they take little more time than one decode step."""

MAX_PREFILL_TOKENS = 4096
"""Of one forward pass."""

_MAX_CHUNK_TOKENS = 2048
"""Of one prompt: attention takes time by the square of this, and where it needs a mask memory too."""

_MIN_CHUNK_TOKENS = 32
"""A chunk that does not end its prompt has more tokens than this: fewer are not worth a pass over its cached ones."""


def schedule_prefill(prefilling: abc.Sequence[Sequence], *, decoding: bool) -> list[tuple[Sequence, int]]:
    """Choose the chunks of this step's chunked prefill.

    Args:
        prefilling: Sequences with tokens left to prefill, in order of arrival.
        decoding: Whether others wait for their next token.

    Returns:
        The sequences of the forward pass, each with its number of tokens to compute.
    """
    budget = _PREFILL_BUDGET_BESIDE_DECODE if decoding else MAX_PREFILL_TOKENS
    counts = split_token_budget([seq.num_remaining_prefill_tokens for seq in prefilling], budget)
    return [(seq, count) for seq, count in zip(prefilling, counts, strict=True) if count]


def split_token_budget(remaining: abc.Sequence[int], budget: int) -> list[int]:
    """Split a token budget: half, or what the others leave, to the first sequence, the remainder to the shortest first.

    `remaining` has the tokens left of each sequence, in order of arrival. Returns the tokens to compute of each.
    """
    counts = [0] * len(remaining)
    if remaining:
        counts[0] = min(remaining[0], _MAX_CHUNK_TOKENS, max(budget // 2, budget - sum(remaining[1:])))
        budget -= counts[0]
    for index in sorted(range(1, len(remaining)), key=lambda index: remaining[index]):
        count = min(remaining[index], _MAX_CHUNK_TOKENS, budget)
        if count == remaining[index] or count > _MIN_CHUNK_TOKENS:
            counts[index] = count
            budget -= count
    return counts

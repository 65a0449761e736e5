"""Prefill scheduler: a token budget per step, so that a long prompt delays neither decode nor shorter prompts."""

from collections import abc

from llama_vision.backends.local.sequence import Sequence

_PREFILL_BUDGET_BESIDE_DECODE = 256
"""Prefill tokens between two decode steps. With the 11B they take little more time than one decode step."""

_MAX_PREFILL_TOKENS = 4096
"""Of one prefill step and of one forward pass, padding included."""

_MAX_CHUNK_TOKENS = 1024
"""Of one prompt: the attention mask takes memory by the square of this."""

_FREE_PADDING = 32
"""Tokens that take no measurable time in a forward pass."""


def schedule_prefill(
    prefilling: abc.Sequence[Sequence], *, decoding: bool
) -> list[list[tuple[Sequence, int]]]:
    """Choose the chunks of this step's chunked prefill.

    Args:
        prefilling: Sequences with prompt tokens left, in order of arrival.
        decoding: Whether others wait for their next token.

    Returns:
        Groups that share a forward pass: each sequence with its number of tokens to compute.
    """
    budget = _PREFILL_BUDGET_BESIDE_DECODE if decoding else _MAX_PREFILL_TOKENS
    counts = split_token_budget([seq.num_remaining_prompt_tokens for seq in prefilling], budget)
    return _group_by_length([(seq, count) for seq, count in zip(prefilling, counts, strict=True) if count])


def split_token_budget(remaining: abc.Sequence[int], budget: int) -> list[int]:
    """Split a token budget: half, or what the others leave, to the first sequence, the remainder to the shortest first.

    `remaining` has the prompt tokens left of each sequence, in order of arrival. Returns the tokens to compute of each.
    """
    counts = [0] * len(remaining)
    if remaining:
        counts[0] = min(remaining[0], _MAX_CHUNK_TOKENS, max(budget // 2, budget - sum(remaining[1:])))
        budget -= counts[0]
    for index in sorted(range(1, len(remaining)), key=lambda index: remaining[index]):
        count = min(remaining[index], _MAX_CHUNK_TOKENS, budget)
        if count == remaining[index] or count > _FREE_PADDING:
            counts[index] = count
            budget -= count
    return counts


def _group_by_length(chunks: abc.Sequence[tuple[Sequence, int]]) -> list[list[tuple[Sequence, int]]]:
    """Group chunks of similar lengths: padding costs as much as tokens."""
    groups: list[list[tuple[Sequence, int]]] = []
    for seq, count in sorted(chunks, key=lambda chunk: chunk[1]):
        if groups:
            shortest = groups[-1][0][1]
            fits = count * (len(groups[-1]) + 1) <= _MAX_PREFILL_TOKENS
            if fits and count <= 2 * shortest + _FREE_PADDING:
                groups[-1].append((seq, count))
                continue
        groups.append([(seq, count)])
    return groups

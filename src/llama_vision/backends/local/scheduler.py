"""How much of which prompt is read at a step, so that a long one holds up neither answers nor shorter ones."""

from collections.abc import Sequence

from llama_vision.backends.local.running_batch import Row

_PREFILL_BUDGET_BESIDE_DECODE = 256
"""That others wait for between two of their tokens. The 11B reads so many in little more than the time of a token."""

_MAX_PREFILL_TOKENS = 4096
"""Of prompts that are read together, those that fill up the shorter ones included."""

_MAX_CHUNK_TOKENS = 1024
"""What each word may look at takes memory by the square."""

_FREE_PADDING = 32
"""So few words more are read in the time of none."""


def schedule_prefill(reading: Sequence[Row], *, decoding: bool) -> list[list[tuple[Row, int]]]:
    """Decide what is read at this step.

    Args:
        reading: Whose prompts are not read to the end, in the order they came.
        decoding: Whether others wait for their next token.

    Returns:
        Who reads on, and how many words, in groups that are read together.

    """
    words = _PREFILL_BUDGET_BESIDE_DECODE if decoding else _MAX_PREFILL_TOKENS
    counts = split_token_budget([row.num_remaining_prompt_tokens for row in reading], words)
    return _group_by_length([(row, count) for row, count in zip(reading, counts, strict=True) if count])


def split_token_budget(num_remaining_prompt_tokens: Sequence[int], words: int) -> list[int]:
    """Share out a step: half of it, or what the others leave, to who came first, the rest to the shortest first.

    Args:
        num_remaining_prompt_tokens: How many words each has to read, in the order they came.
        words: How many there are to share out.

    Returns:
        How many each reads, of which some may be 0.

    """
    counts = [0] * len(num_remaining_prompt_tokens)
    others = sorted(
        range(1, len(num_remaining_prompt_tokens)), key=lambda number: num_remaining_prompt_tokens[number]
    )
    if num_remaining_prompt_tokens:
        counts[0] = min(
            num_remaining_prompt_tokens[0],
            _MAX_CHUNK_TOKENS,
            max(words // 2, words - sum(num_remaining_prompt_tokens[1:])),
        )
        words -= counts[0]
    for number in others:
        count = min(num_remaining_prompt_tokens[number], _MAX_CHUNK_TOKENS, words)
        if count == num_remaining_prompt_tokens[number] or count > _FREE_PADDING:
            counts[number] = count
            words -= count
    return counts


def _group_by_length(pieces: Sequence[tuple[Row, int]]) -> list[list[tuple[Row, int]]]:
    """Put pieces of similar lengths together: the shorter ones are filled up, which costs as much as words."""
    groups: list[list[tuple[Row, int]]] = []
    for row, count in sorted(pieces, key=lambda piece: piece[1]):
        if groups:
            shortest = groups[-1][0][1]
            fits = count * (len(groups[-1]) + 1) <= _MAX_PREFILL_TOKENS
            if fits and count <= 2 * shortest + _FREE_PADDING:
                groups[-1].append((row, count))
                continue
        groups.append([(row, count)])
    return groups

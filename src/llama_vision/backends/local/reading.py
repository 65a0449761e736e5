"""How much of which prompt is read at a step, so that a long one holds up neither answers nor shorter ones."""

from collections.abc import Sequence

from llama_vision.backends.local.rows import Row

_WORDS_BESIDE_WRITING = 256
"""That others wait for between two of their tokens. The 11B reads so many in little more than the time of a token."""

_WORDS_AT_ONCE = 4096
"""Of prompts that are read together, those that fill up the shorter ones included."""

_WORDS_OF_ONE = 1024
"""What each word may look at takes memory by the square."""

_FILLED_UP_FOR_NOTHING = 32
"""So few words more are read in the time of none."""


def next_words(reading: Sequence[Row], *, beside_writing: bool) -> list[list[tuple[Row, int]]]:
    """Decide what is read at this step.

    Args:
        reading: Whose prompts are not read to the end, in the order they came.
        beside_writing: Whether others wait for their next token.

    Returns:
        Who reads on, and how many words, in groups that are read together.

    """
    words = _WORDS_BESIDE_WRITING if beside_writing else _WORDS_AT_ONCE
    counts = shares([row.unread for row in reading], words)
    return _alike([(row, count) for row, count in zip(reading, counts, strict=True) if count])


def shares(unread: Sequence[int], words: int) -> list[int]:
    """Share out a step: half of it, or what the others leave, to who came first, the rest to the shortest first.

    Args:
        unread: How many words each has to read, in the order they came.
        words: How many there are to share out.

    Returns:
        How many each reads, of which some may be 0.

    """
    counts = [0] * len(unread)
    others = sorted(range(1, len(unread)), key=lambda number: unread[number])
    if unread:
        counts[0] = min(unread[0], _WORDS_OF_ONE, max(words // 2, words - sum(unread[1:])))
        words -= counts[0]
    for number in others:
        count = min(unread[number], _WORDS_OF_ONE, words)
        if count == unread[number] or count > _FILLED_UP_FOR_NOTHING:
            counts[number] = count
            words -= count
    return counts


def _alike(pieces: Sequence[tuple[Row, int]]) -> list[list[tuple[Row, int]]]:
    """Put pieces of similar lengths together: the shorter ones are filled up, which costs as much as words."""
    groups: list[list[tuple[Row, int]]] = []
    for row, count in sorted(pieces, key=lambda piece: piece[1]):
        if groups:
            shortest = groups[-1][0][1]
            fits = count * (len(groups[-1]) + 1) <= _WORDS_AT_ONCE
            if fits and count <= 2 * shortest + _FILLED_UP_FOR_NOTHING:
                groups[-1].append((row, count))
                continue
        groups.append([(row, count)])
    return groups

"""All-pairs selection: of a test's full product, the few cases in which any two values still meet once."""

import heapq
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import combinations


def _pairs(case: Sequence[Hashable]) -> set[tuple]:
    """Give the pairs of values, each with its parameter's place; a single parameter's value stands for itself."""
    return set(combinations(enumerate(case), min(2, len(case))))


def select_pairs(cases: Sequence[Sequence[Hashable]]) -> set[int]:
    """Choose cases greedily until they cover each pair of parameter values that occurs in any case.

    Args:
        cases: The parameters' values, in the same order in each case.

    Returns:
        The positions of the chosen cases; the same ones for the same input.
    """
    pairs = [_pairs(case) for case in cases]
    missing = set().union(*pairs)
    # A gain only ever shrinks, so the top is the best once its own gain is up to date.
    queue = [(-len(found), place) for place, found in enumerate(pairs)]
    heapq.heapify(queue)
    chosen = set()
    while missing:
        gain, place = heapq.heappop(queue)
        current = -len(pairs[place] & missing)
        if current == gain:
            chosen.add(place)
            missing -= pairs[place]
        elif current:
            heapq.heappush(queue, (current, place))
    return chosen


def beyond_pairs(items: Sequence) -> list:
    """Give the collected test items whose pairs of values are all covered by other items of the same test.

    A parameter is one `parametrize` or one fixture with params: rows of several names are one, and stay whole.
    """
    by_test = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec"):
            by_test[item.nodeid.partition("[")[0]].append(item)
    chosen = {
        group[place]
        for group in by_test.values()
        for place in select_pairs([item.callspec._idlist for item in group])
    }
    return [item for group in by_test.values() for item in group if item not in chosen]

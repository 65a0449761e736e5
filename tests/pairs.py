"""Which cases of a test `make test` runs, where `make test-all` runs all of them.

All-pairs selection takes, of a test's full product, the few cases in which any two values still meet once. Where those are
too many, or a test has one parameter, the mark `slow_beyond(n)` takes n of its cases.
"""

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
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
    by_test = _by_test(item for item in items if hasattr(item, "callspec"))
    chosen = {
        group[place]
        for group in by_test.values()
        for place in select_pairs([item.callspec._idlist for item in group])
    }
    return [item for group in by_test.values() for item in group if item not in chosen]


def beyond_marks(items: Sequence) -> list:
    """Give the collected test items of each test beyond the number in its mark `slow_beyond(n)`: n are left, evenly spread."""
    by_test = _by_test(item for item in items if item.get_closest_marker("slow_beyond"))
    beyond = []
    for group in by_test.values():
        number = group[0].get_closest_marker("slow_beyond").args[0]
        kept = {len(group) * place // number for place in range(number)}
        beyond += [item for place, item in enumerate(group) if place not in kept]
    return beyond


def _by_test(items: Iterable) -> dict[str, list]:
    by_test = defaultdict(list)
    for item in items:
        by_test[item.nodeid.partition("[")[0]].append(item)
    return by_test

"""The cases that `make test` runs of a large product: any two values of its parameters meet in one of them."""

import os
import re
import subprocess
import sys
from itertools import combinations, product
from pathlib import Path

import pytest

from tests.pairs import select_pairs

ROOT = Path(__file__).resolve().parents[1]


def product_of(*sizes):
    return list(product(*map(range, sizes)))


@pytest.mark.parametrize("sizes", [(6, 2, 4), (14, 6, 2, 4), (3, 3, 3, 3, 3)], ids=str)
def test_any_two_values_meet_and_few_cases_are_needed(sizes):
    cases = product_of(*sizes)
    chosen = [cases[place] for place in select_pairs(cases)]
    for one, other in combinations(range(len(sizes)), 2):
        assert {(case[one], case[other]) for case in chosen} == {(case[one], case[other]) for case in cases}
    largest, second, *_ = sorted(sizes, reverse=True)
    assert len(chosen) < 1.7 * largest * second < len(cases)


@pytest.mark.parametrize("sizes", [(5,), (3, 4)], ids=str)
def test_one_or_two_parameters_keep_their_whole_product(sizes):
    cases = product_of(*sizes)
    assert select_pairs(cases) == set(range(len(cases)))


def test_the_choice_is_always_the_same():
    cases = product_of(5, 4, 3)
    assert select_pairs(cases) == select_pairs(cases)
    assert select_pairs([]) == set()


CONFTEST = """
import pytest
from tests.pairs import beyond_marks, beyond_pairs

def pytest_collection_modifyitems(items):
    for item in [*beyond_pairs(items), *beyond_marks(items)]:
        item.add_marker("slow")
"""
CASES = """
import pytest

@pytest.mark.parametrize("a", range(4))
@pytest.mark.parametrize("b", range(3))
@pytest.mark.parametrize("c", range(2))
def test_product(a, b, c): pass

@pytest.mark.parametrize("a, b, c", [(a, b, c) for a in range(4) for b in range(3) for c in range(2)])
def test_rows(a, b, c): pass

def test_alone(): pass
"""
MARKED = """
import pytest

@pytest.mark.parametrize("a", range(10))
@pytest.mark.slow_beyond(3)
def test_ten(a): pass

@pytest.mark.parametrize("a", range(2))
@pytest.mark.slow_beyond(3)
def test_two(a): pass
"""


def run(folder, cases):
    """Run the cases that are not slow, and count those and the others."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow\n  slow_beyond\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_cases.py").write_text(cases)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", str(folder)]
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return map(int, re.search(r"(\d+) passed, (\d+) deselected", done.stdout).groups())


@pytest.mark.slow
def test_rows_of_values_that_belong_together_all_stay(tmp_path):
    passed, deselected = run(tmp_path, CASES)
    assert passed + deselected == 24 + 24 + 1
    assert 24 + 1 + 12 <= passed <= 24 + 1 + 16


@pytest.mark.slow
def test_so_many_cases_as_the_mark_says_stay(tmp_path):
    assert tuple(run(tmp_path, MARKED)) == (3 + 2, 7)

"""Mutation testing, tried on a module of a few lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.operators import mutants

REPOSITORY = Path(__file__).parents[2]
TOY = """
def largest(first, second):
    '''The larger one.'''
    if first > second:
        return first
    return second
"""
TESTS = """
import toy

def test_the_larger_one():
    assert toy.largest(3, 2) == 3
    assert toy.largest(2, 3) == 3
"""


def changes(source):
    return [mutant.change for mutant in mutants(source)]


def test_each_part_of_a_function_is_mutated():
    assert changes(
        "class A:\n    def f(self, a=1):\n        '''Text.'''\n        return a + 1 < 2 or 'x'\n"
    ) == [
        "return a + 1 < 2 or 'x' -> return None",
        "a + 1 < 2 or 'x' -> a + 1 < 2 and 'x'",
        "a + 1 < 2 -> a + 1 <= 2",
        "a + 1 -> a - 1",
        "1 -> 2",
        "2 -> 3",
        "'x' -> 'xX'",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "limit = 1 < 2",
        "def f(a: 'int' = 1):\n    assert a\n    print(f'{a + 1}')\n",
    ],
)
def test_what_is_executed_at_import_and_what_people_read_is_not(source):
    assert [change for change in changes(source) if not change.startswith("print")] == []


def test_survivors_are_told(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TESTS)
    run = """
import sys
from pathlib import Path
from tests.mutation.areas import Area
from tests.mutation.session import run_session
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[1])
run_session(Area((folder / "toy.py",), (folder / "test_toy.py",)), 0, 0, (), folder / "results.json")
"""
    ran = subprocess.run(
        [sys.executable, "-c", run, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "first > second -> first >= second" in ran.stdout
    outcomes = json.loads((tmp_path / "results.json").read_text())
    assert sorted(outcomes) == [
        "killed",
        "killed",
        "killed",
        "survived",
    ]  # the condition, and each value returned

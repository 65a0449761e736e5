"""Run tests against mutants: `make mutate`, or `python -m tests.mutation toolcalls --number 50`.

Each area is one pytest session. It collects the tests once and never runs them itself. A first fork runs all of them, and
notes which tests execute which line. Then each mutant is a fork that gives the functions of the module, as they were imported, the
mutated code, and runs the tests of the changed lines, the quickest first, until one fails. What is executed at import, such
as a table or a default, is not mutated.
"""

import argparse
import json
import os
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

from tests.mutation.areas import AREAS
from tests.mutation.session import run_session

EXPLAINED = Path(__file__).with_name("explained.toml")


def main() -> int:
    """Test samples of the areas named, and tell of each mutant that no test fails for; 1 where one is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all without one")
    parser.add_argument("--number", type=int, default=40, help="mutants of an area; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    options = parser.parse_args()
    explained = {
        change for changes in tomllib.loads(EXPLAINED.read_text()).values() for change in changes["changes"]
    }
    unexplained = [_area(name, options.number, options.seed, explained) for name in options.areas or AREAS]
    return any(unexplained)


def _area(name: str, number: int, seed: int, explained: set[str]) -> int:
    """Test an area in a process of its own, since no two areas import the same modules; give the number not explained."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        if not (process := os.fork()):
            os._exit(run_session(AREAS[name], number, seed, explained, results))
        if os.waitpid(process, 0)[1]:
            sys.exit(f"{name}: the tests could not be run")
        outcomes = Counter(json.loads(results.read_text()))
    killed = outcomes["killed"] + outcomes["timeout"]
    print(
        f"{name}: {killed} of {outcomes.total()} mutants killed ({killed / outcomes.total():.0%}), {outcomes['timeout']} of "
        f"them by a timeout; {outcomes['explained']} explained, {outcomes['survived']} not",
        flush=True,
    )
    return outcomes["survived"]


sys.exit(main())

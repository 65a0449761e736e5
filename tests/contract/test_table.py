"""The table of abilities in docs/providers.md is the one that the contract prints."""

import re
from pathlib import Path

from tests.contract.subject import HOSTED
from tests.contract.table import TESTS, Outcomes, table

ROOT = Path(__file__).resolve().parents[2]


def all_passed():
    outcomes = Outcomes()
    outcomes.by_test.update({(test, provider): {"passed"} for test in TESTS.values() for provider in HOSTED})
    return outcomes


def test_the_page_shows_what_a_run_without_failures_prints():
    page = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- abilities: .*?-->\n(.*?)\n<!-- end of abilities -->", page, re.DOTALL)
    assert shown is not None
    assert shown[1] == table(all_passed()), "put the output of `python -m tests.contract.table` there"


def test_a_failure_shows_in_the_table():
    outcomes = all_passed()
    outcomes.by_test["test_image", "deepinfra"].add("failed")
    assert "FAILED" in table(outcomes)
    del outcomes.by_test["test_text", "deepinfra"]
    assert table(outcomes).count("FAILED") == 2


def test_every_ability_of_the_table_has_a_test():
    source = (Path(__file__).parent / "test_contract.py").read_text()
    for test in TESTS.values():
        assert f"def {test}(" in source

"""Every quirk of the list has its tests, or a word on why it has none."""

import re
from pathlib import Path

QUIRKS = set(range(1, 57))
HERE = Path(__file__).parent
CONTRIBUTING = HERE.parents[1] / "CONTRIBUTING.md"


def with_tests() -> set[int]:
    files = "".join(path.read_text("utf-8") for path in HERE.glob("test_quirks_*.py"))
    return {int(number) for number in re.findall(r"^(?:async )?def test_quirk_(\d\d)_", files, re.MULTILINE)}


def out_of_reach() -> set[int]:
    _, _, rest = CONTRIBUTING.read_text("utf-8").partition("\n## Quirks out of reach\n")
    section = rest.partition("\n## ")[0]
    return {int(number) for number in re.findall(r"^- (\d+)\b", section, re.MULTILINE)}


def test_every_quirk_is_tested_or_said_to_be_out_of_reach():
    assert with_tests() | out_of_reach() == QUIRKS


def test_no_quirk_is_both():
    assert with_tests() & out_of_reach() == set()

"""Every quirk of the list has its tests."""

import re
from pathlib import Path

QUIRKS = set(range(1, 57))
HERE = Path(__file__).parent


def with_tests() -> set[int]:
    files = "".join(path.read_text("utf-8") for path in HERE.glob("test_quirks_*.py"))
    return {int(number) for number in re.findall(r"^(?:async )?def test_quirk_(\d\d)_", files, re.MULTILINE)}


def test_every_quirk_is_tested():
    assert with_tests() == QUIRKS

"""The README tells the truth: its table is made from the records. Its code is run by tests/docs."""

import re
from pathlib import Path

from llama_vision.cli.providers import markdown_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_providers_is_that_of_the_records():
    shown = re.search(r"<!-- providers: .*?-->\n(.*?)\n<!-- end of providers -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1] == markdown_table(), "put the output of `llama-vision providers --markdown` there"

"""Writes the tables of README.md and docs/providers.md anew, from the records: `python -m tests.docs.tables`, or `make tables`.

With `--all` also those that are made by running tests, in some minutes: abilities and LangChain's standard suites.
"""

import re
import subprocess
import sys
from pathlib import Path

from llama_vision.cli.providers import markdown_table
from llama_vision.providers.hosted import HOSTED
from llama_vision.providers.local import LOCAL
from llama_vision.providers.servers import OPENAI_COMPATIBLE, SERVERS

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PROVIDERS_PAGE = ROOT / "docs" / "providers.md"
MADE_BY_TESTS = {"abilities": "tests.contract.table", "standard suites": "tests.langchain.table"}


def is_retired(record):
    return all(model.deprecation for model in record.models)


def short_table():
    """Make README's table: the names of all providers, by where they run."""
    rows = {
        "hosted": [record for record in HOSTED if not is_retired(record)],
        "hosted, may no longer answer": [record for record in HOSTED if is_retired(record)],
        "your server": sorted([*SERVERS, OPENAI_COMPATIBLE], key=is_retired),
        "this process": [LOCAL],
    }
    names = {where: " ".join(f"`{record.name}`" for record in records) for where, records in rows.items()}
    return "\n".join(
        [
            "| where | `provider=` |",
            "| --- | --- |",
            *(f"| {where} | {text} |" for where, text in names.items()),
        ]
    )


def between_marks(text, name):
    """Find the table of this name: what stands between its two comments."""
    found = re.search(rf"<!-- {name}: .*?-->\n(.*?)\n<!-- end of {name} -->", text, re.DOTALL)
    assert found is not None, f"there are no comments `{name}: ...` and `end of {name}`"
    return found


def rewrite(path, name, table):
    """Put a table between its comments."""
    text = path.read_text(encoding="utf-8")
    start, end = between_marks(text, name).span(1)
    path.write_text(text[:start] + table + text[end:], encoding="utf-8")


def main():
    rewrite(README, "short table", short_table())
    rewrite(PROVIDERS_PAGE, "providers", markdown_table())
    for name, module in MADE_BY_TESTS.items() if "--all" in sys.argv[1:] else ():
        made = subprocess.run(
            [sys.executable, "-m", module], cwd=ROOT, check=True, capture_output=True, text=True
        )
        rewrite(PROVIDERS_PAGE, name, made.stdout.strip())


if __name__ == "__main__":
    main()

"""Runs LangChain's standard suites and prints what came of them, as a table of docs/providers.md: `python -m tests.langchain.table`."""

import contextlib
import importlib.metadata
import math
import sys
from collections import Counter, defaultdict

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from tests.langchain.standard.endpoints import ENDPOINTS, left_out

SUITES = {"unit": ChatModelUnitTests, "integration": ChatModelIntegrationTests}
KINDS = ("passed", "failed", "skipped")
OTHERS = {
    "ChatOpenAI, with its defaults": (54, 1, 5),
    "langchain-cloudflare, native": (41, 13, 6),
}
"""What the same suites gave for other packages, both together, on 2026-11-20."""


class Outcomes:
    """Counts the outcomes of a run by suite and endpoint. What was expected to fail has failed."""

    def __init__(self):
        self.counts = defaultdict(Counter)
        self._classes = {f"Test{endpoint.__name__}": endpoint.provider for endpoint in ENDPOINTS}

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.outcome != "failed":
            return
        file, _, inside = report.nodeid.partition("::")
        test_class, _, _ = inside.partition("::")
        if test_class not in self._classes:  # a test of ours beside the suites
            return
        suite = next(name for name in SUITES if f"test_standard_{name}.py" in file)
        outcome = "failed" if hasattr(report, "wasxfail") else report.outcome
        self.counts[suite, self._classes[test_class]][outcome] += 1


def expected():
    """Count what the endpoints say of themselves; the suites fail where a run gives anything else."""
    outcomes = Outcomes()
    for endpoint in ENDPOINTS:
        skipped = left_out(endpoint.record())
        for name, suite in SUITES.items():
            counts = outcomes.counts[name, endpoint.provider]
            for test in filter(lambda member: member.startswith("test_"), dir(suite)):
                kind = "skipped" if test in skipped else "failed" if test in endpoint.beyond else "passed"
                counts[kind] += _cases(getattr(suite, test))
    return outcomes


def _cases(test):
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    return math.prod(len(mark.args[1]) for mark in marks)


def table(outcomes):
    """Make the table and the reasons under it."""
    version = importlib.metadata.version("langchain-tests")
    lines = [
        f"| langchain-tests {version}: {', '.join(KINDS)} | {' | '.join(SUITES)} | together |",
        "| --- |" + " --- |" * (len(SUITES) + 1),
    ]
    for endpoint in ENDPOINTS:
        counts = [outcomes.counts[suite, endpoint.provider] for suite in SUITES]
        cells = [_cell(count) for count in (*counts, sum(counts, Counter()))]
        lines.append(f"| `{endpoint.provider}` | {' | '.join(cells)} |")
    lines += [
        f"| {name} | {'| ' * len(SUITES)}{', '.join(map(str, counts))} |" for name, counts in OTHERS.items()
    ]
    return "\n".join([*lines, "", *_reasons()])


def _cell(counts):
    return ", ".join(str(counts[kind]) for kind in KINDS)


def _reasons():
    everywhere = set.intersection(*(set(left_out(endpoint.record()).values()) for endpoint in ENDPOINTS))
    yield f"- skipped everywhere: {'; '.join(sorted(everywhere))}"
    for endpoint in ENDPOINTS:
        own = {*left_out(endpoint.record()).values(), *endpoint.beyond.values()} - everywhere
        if own:
            yield f"- `{endpoint.provider}` {'; '.join(sorted(own))}"


def main():
    outcomes = Outcomes()
    quiet = ["-q", "--benchmark-disable", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with contextlib.redirect_stdout(sys.stderr):  # so that only the table can be piped into a file
        code = pytest.main([*quiet, "tests/langchain/standard"], plugins=[outcomes])
    print(table(outcomes))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

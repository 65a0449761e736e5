"""Runs the contract and prints what each provider can do, as a table of docs/providers.md: `python -m tests.contract.table`."""

import contextlib
import sys
from collections import defaultdict

import pytest

from llama_vision import find_provider
from tests.contract.abilities import PROMPTED, reason_against
from tests.contract.subject import HOSTED

TESTS = {
    "text": "test_text",
    "system": "test_system",
    "image": "test_image",
    "image by URL": "test_image_by_url",
    "several images": "test_several_images_arrive_in_order_or_are_refused_by_number",
    "system beside image": "test_system_beside_an_image",
    "tools": "test_tools",
    "forced tool": "test_a_forced_tool",
    "tool history": "test_tool_history",
    "stop texts": "test_stop",
    "usage": "test_usage",
    "cost": "test_the_cost_is_told_or_estimated_and_said_to_be",
    "unicode": "test_unicode",
    "429, tried again": "test_429_is_tried_again",
    "cut answers noticed": "test_a_cut_answer_is_an_error_and_not_a_short_answer",
}
"""The test that shows each ability, in both adapters and all four styles."""


class Outcomes:
    """Keeps the outcome of every test."""

    def __init__(self):
        self.by_test = defaultdict(set)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            name, _, rest = report.nodeid.rpartition("::")[2].partition("[")
            provider = next(
                (each for each in sorted(HOSTED, key=len)[::-1] if rest.startswith(each + "-")), None
            )
            self.by_test[name, provider].add(report.outcome)


def cell(outcomes, ability, provider):
    """Say what the run showed: it works, or the record's reason why not, or that it failed."""
    reason = reason_against(find_provider(provider), ability)
    seen = outcomes.by_test[TESTS[ability], provider]
    if "failed" in seen or not seen:
        return "FAILED"
    if reason is None:
        return "yes"
    return "prompted" if ability in PROMPTED else "no"


def table(outcomes):
    """Make the table and the reasons under it."""
    lines = [
        "| | " + " | ".join(f"`{provider}`" for provider in HOSTED) + " |",
        "| --- |" + " --- |" * len(HOSTED),
    ]
    lines += [
        f"| {ability} | " + " | ".join(cell(outcomes, ability, provider) for provider in HOSTED) + " |"
        for ability in TESTS
    ]
    reasons = {}
    for provider in HOSTED:
        record = find_provider(provider)
        told = {reason for ability in TESTS if (reason := reason_against(record, ability))}
        if told:
            reasons[provider] = "; ".join(sorted(told))
    lines += ["", *(f"- `{provider}` {reason}" for provider, reason in reasons.items())]
    return "\n".join(lines)


def main():
    outcomes = Outcomes()
    quiet = ["-q", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with contextlib.redirect_stdout(sys.stderr):  # so that only the table can be piped into a file
        code = pytest.main([*quiet, "tests/contract/test_contract.py"], plugins=[outcomes])
    print(table(outcomes))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

"""The table of LangChain's standard suites in docs/providers.md is the one that a run of them prints."""

import re
from collections import Counter
from types import SimpleNamespace

from tests.cassette_cases import ROOT
from tests.langchain.standard.endpoints import DeepInfra, left_out
from tests.langchain.table import ENDPOINTS, SUITES, Outcomes, expected, table


def report(nodeid, outcome, when="call", **more):
    return SimpleNamespace(nodeid=nodeid, outcome=outcome, when=when, **more)


def test_the_page_shows_what_the_endpoints_say_of_themselves():
    """And what they say is what a run gives: nothing else is skipped, and what is beyond a model has to fail."""
    page = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    shown = re.search(
        r"<!-- standard suites: .*?-->\n(.*?)\n<!-- end of standard suites -->", page, re.DOTALL
    )
    assert shown is not None
    assert shown[1] == table(expected()), "put the output of `python -m tests.langchain.table` there"


def test_every_test_of_the_suites_is_counted():
    counts = expected().counts
    assert {counts["unit", endpoint.provider].total() for endpoint in ENDPOINTS} == {10}
    assert {counts["integration", endpoint.provider].total() for endpoint in ENDPOINTS} == {50}


def test_what_a_run_reports_is_counted_once():
    outcomes = Outcomes()
    unit, integration = (f"tests/langchain/standard/test_standard_{suite}.py::" for suite in SUITES)
    for one in (
        report(f"{unit}TestDeepInfra::test_init", "passed", "setup"),
        report(f"{unit}TestDeepInfra::test_init", "passed"),
        report(f"{unit}TestDeepInfra::test_init", "passed", "teardown"),
        report(f"{integration}TestLocal::test_invoke", "failed", "setup"),
        report(f"{integration}TestLocal::test_json_mode", "skipped", wasxfail="beyond it"),
        report(f"{integration}TestLocal::test_audio_inputs", "skipped"),
    ):
        outcomes.pytest_runtest_logreport(one)
    assert outcomes.counts == {
        ("unit", "deepinfra"): Counter(passed=1),
        ("integration", "local"): Counter(failed=2, skipped=1),
    }


def test_a_failure_changes_the_table():
    outcomes = expected()
    outcomes.counts["unit", "deepinfra"].subtract(passed=1)
    outcomes.counts["unit", "deepinfra"]["failed"] += 1
    assert "| `deepinfra` | 9, 1, 0 |" in table(outcomes)
    assert table(outcomes) != table(expected())


def test_what_is_left_out_follows_the_record():
    assert set(left_out(DeepInfra.record())) == {
        "test_pdf_inputs",
        "test_pdf_tool_message",
        "test_audio_inputs",
    }

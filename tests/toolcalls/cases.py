"""All examples of texts with and without tool calls."""

from tests.toolcalls import (
    cases_around,
    cases_code,
    cases_escapes,
    cases_json,
    cases_pythonic,
    cases_refuted,
    cases_several,
    cases_tagged,
    cases_values,
)

CASES = (
    *cases_json.CASES,
    *cases_several.CASES,
    *cases_values.CASES,
    *cases_escapes.CASES,
    *cases_pythonic.CASES,
    *cases_tagged.CASES,
    *cases_code.CASES,
    *cases_around.CASES,
    *cases_refuted.CASES,
)
"""Every case of every file."""

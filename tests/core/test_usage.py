"""Reports of consumption: how two become one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.models import Price
from llama_vision.core.usage import Usage

COUNT = st.none() | st.integers(min_value=0, max_value=10**9)
DETAILS = st.dictionaries(st.sampled_from(["image_tokens", "audio_tokens"]), st.integers(0, 10**9))
COUNTS = st.builds(Usage, COUNT, COUNT, COUNT, input_token_details=DETAILS, output_token_details=DETAILS)
USAGES = st.builds(
    Usage,
    COUNT,
    COUNT,
    COUNT,
    cost_usd=st.floats(min_value=0, max_value=1e6),
    cost_is_estimate=st.booleans(),
) | COUNTS  # fmt: skip


@settings(deadline=None)
@given(COUNTS, COUNTS)
def test_merging_counts_does_not_depend_on_the_order(first, second):
    assert first.merge(second) == second.merge(first)


@settings(deadline=None)
@given(USAGES)
def test_merging_a_report_with_itself_changes_nothing(usage):
    assert usage.merge(usage) == usage


@settings(deadline=None)
@given(USAGES)
def test_an_empty_report_changes_nothing(usage):
    assert Usage().merge(usage) == usage
    assert usage.merge(Usage()) == usage


@settings(deadline=None)
@given(USAGES, USAGES, USAGES)
def test_three_reports_make_the_same_in_any_grouping(first, second, third):
    assert first.merge(second).merge(third) == first.merge(second.merge(third))


def test_the_larger_count_of_each_field_wins():
    growing = Usage(input_tokens=45, output_tokens=2, cached_input_tokens=None)
    zeros = Usage(input_tokens=0, output_tokens=7, cached_input_tokens=0)
    assert growing.merge(zeros) == Usage(input_tokens=45, output_tokens=7, cached_input_tokens=0)


def test_nobody_said_is_not_zero():
    assert Usage().merge(Usage()) == Usage(None, None, None, None)
    assert Usage().merge(Usage(input_tokens=0)).input_tokens == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_a_told_cost_beats_a_larger_estimate(swapped):
    told, estimated = Usage(cost_usd=0.001), Usage(cost_usd=0.5, cost_is_estimate=True)
    merged = estimated.merge(told) if swapped else told.merge(estimated)
    assert (merged.cost_usd, merged.cost_is_estimate) == (0.001, False)


@pytest.mark.parametrize("estimate", [False, True])
def test_the_larger_of_two_costs_of_a_kind_wins(estimate):
    small = Usage(cost_usd=0.1, cost_is_estimate=estimate)
    large = Usage(cost_usd=0.2, cost_is_estimate=estimate)
    assert small.merge(large) == large.merge(small) == large


def test_a_cost_is_worked_out_from_the_price_per_million():
    price = Price(input_per_million=0.049, output_per_million=0.68)
    assert price.estimate(Usage(input_tokens=2_000_000, output_tokens=500_000)) == pytest.approx(
        0.438, rel=1e-9
    )


@pytest.mark.parametrize("usage", [Usage(), Usage(input_tokens=1), Usage(output_tokens=1)])
def test_no_cost_is_made_up_where_a_count_is_missing(usage):
    assert Price(1, 1).estimate(usage) is None


@settings(deadline=None)
@given(USAGES, USAGES, USAGES)
def test_replies_add_up_in_any_order_and_grouping(first, second, third):
    assert first + second == second + first
    left, right = (first + second) + third, first + (second + third)
    assert (left.input_tokens, left.output_tokens) == (right.input_tokens, right.output_tokens)
    assert left.cost_usd == pytest.approx(right.cost_usd)


@settings(deadline=None)
@given(USAGES)
def test_nothing_told_adds_nothing(usage):
    assert usage + Usage() == Usage() + usage == usage


def test_a_sum_is_an_estimate_if_a_part_is():
    total = Usage(10, 5, None, 0.5) + Usage(1, 2, 3, 0.25, cost_is_estimate=True)
    assert total == Usage(11, 7, 3, 0.75, cost_is_estimate=True)


def test_usage_is_read_from_openais_names_and_nothing_is_made_up():
    fields = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 3,
        "cost_usd": 0.5,
        "cost_is_estimate": True,
    }
    assert Usage.from_openai(fields) == Usage(10, 5, 3, 0.5, cost_is_estimate=True)
    assert Usage.from_openai({"total_tokens": 7}) == Usage()


def test_details_of_two_replies_add_up_by_name():
    first = Usage(1, 2, input_token_details={"image_tokens": 5})
    second = Usage(
        1, 2, input_token_details={"image_tokens": 7, "audio_tokens": 1}, output_token_details={"x": 1}
    )
    total = first + second
    assert total.input_token_details == {"image_tokens": 12, "audio_tokens": 1}
    assert total.output_token_details == {"x": 1}

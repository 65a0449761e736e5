"""What a reply cost: as the provider tells it, wherever it does, or else an estimate that says so."""

from dataclasses import replace

import pytest

from llama_vision import ModelInfo, Price, Usage, find_provider
from llama_vision.core.events import UsageReport
from tests.emulator import ACCOUNT_ID, Emulator, completion, event_stream, json_answer
from tests.emulator.asking import STREAMED_WAYS, WAYS, ask, backend_for, question

COST = 17 * 0.055e-6  # of the emulators' usual reply
COUNTS = {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}
HELLO = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


def usage_at(emulator: Emulator, provider: str, way: str) -> Usage:
    record = find_provider(provider)
    account = {"account_id": ACCOUNT_ID} if record.account_env else {}
    request = replace(question(), model=record.models[0].id)
    return ask(backend_for(emulator, provider, **account), way, request).usage


@pytest.mark.parametrize("provider", ["deepinfra", "aimlapi", "aigateway"])
def test_a_cost_that_is_told_is_the_cost(emulator_of, provider, way):
    # In the body, in a header, in a chunk of its own: each emulator tells it as its provider does.
    emulator = emulator_of(provider)
    emulator.script(completion("Hello there"))
    usage = usage_at(emulator, provider, way)
    assert usage.cost_usd == pytest.approx(COST)
    assert not usage.cost_is_estimate
    assert (usage.input_tokens, usage.output_tokens) == (15, 2)


def test_a_cost_in_neurons_is_an_estimate_because_some_are_free(emulator_of, way):
    emulator = emulator_of("cloudflare")
    emulator.script(completion("Hello there"))
    usage = usage_at(emulator, "cloudflare", way)
    assert usage.cost_usd == pytest.approx(COST)
    assert usage.cost_is_estimate


@pytest.mark.parametrize("provider", ["aigateway", "cloudflare", "cloudflare-openai"])
def test_a_cost_that_is_not_told_is_estimated_from_the_price_list(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(completion("Hello there", usage=COUNTS))
    usage = usage_at(emulator, provider, way)
    assert (usage.input_tokens, usage.output_tokens) == (1_000_000, 500_000)
    assert usage.cost_usd == pytest.approx(0.049 + 0.34)
    assert usage.cost_is_estimate


@pytest.mark.parametrize("provider", ["openai-compatible", "aimlapi"])
def test_no_cost_is_made_up_where_there_is_no_price(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(completion("Hello there", usage=COUNTS))
    assert usage_at(emulator, provider, way) == Usage(1_000_000, 500_000)


@pytest.mark.parametrize("provider", ["aigateway", "cloudflare"])
def test_no_cost_is_made_up_where_there_are_no_counts(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(completion("Hello there", usage={}))
    assert usage_at(emulator, provider, way) == Usage()


def test_no_cost_is_made_up_for_a_model_that_is_not_on_the_list(emulator_of, way):
    emulator = emulator_of("deepinfra")
    provider = replace(
        find_provider("deepinfra"), models=(ModelInfo("other", "host/other", price=Price(1, 1)),)
    )
    emulator.script(completion("Hello there", usage=COUNTS))
    assert ask(backend_for(emulator, provider), way).usage == Usage(1_000_000, 500_000)


@pytest.mark.parametrize(
    ("provider", "headers", "cost"),
    [
        ("openai-compatible", {"X-Cost-Cents": "0.0268"}, 0.000268),
        ("openai-compatible", {"X-AIMLAPI-USD-Spent": "0.00124"}, 0.00124),
        ("aigateway", {"X-Cost-Cents": "0.0268"}, 0.000268),
        ("aimlapi", {"X-AIMLAPI-USD-Spent": "0.00124"}, 0.00124),
    ],
)
def test_a_cost_in_a_header_counts_and_beats_an_estimate(emulator_of, provider, way, headers, cost):
    emulator = emulator_of(provider)
    streamed = way in STREAMED_WAYS
    body = completion("Hello there", usage=COUNTS)
    answer = event_stream(HELLO, {"usage": COUNTS}, "[DONE]", headers=headers)
    emulator.script(answer if streamed else json_answer(body, headers=headers))
    usage = usage_at(emulator, provider, way)
    assert usage == Usage(1_000_000, 500_000, cost_usd=pytest.approx(cost))


def test_a_cost_that_is_told_later_replaces_the_estimate(emulator_of):
    emulator = emulator_of("aigateway")
    emulator.script(event_stream(HELLO, {"usage": COUNTS}, {"usage": {**COUNTS, "cost": 0.5}}, "[DONE]"))
    request = replace(question(), model=find_provider("aigateway").models[0].id)
    reports = [
        event.usage
        for event in backend_for(emulator, "aigateway").stream(request)
        if isinstance(event, UsageReport)
    ]
    assert [(usage.cost_usd, usage.cost_is_estimate) for usage in reports] == [
        (pytest.approx(0.389), True),
        (0.5, False),
    ]


def test_a_request_without_usage_in_its_stream_still_learns_the_cost_from_the_header(emulator_of):
    emulator = emulator_of("aigateway")
    emulator.script(event_stream(HELLO, "[DONE]", headers={"x-cost-cents": "2"}))
    assert usage_at(emulator, "aigateway", "stream") == Usage(cost_usd=0.02)

"""A budget that is kept, a rate, and how many calls there are at once."""

import asyncio
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llama_vision.backends import CallCounters, Limits, create_backend
from llama_vision.backends.limits import estimate_cost
from llama_vision.core.errors import BudgetExceededError, ConfigurationError, RequestTimeoutError
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest, SamplingParams
from llama_vision.providers import find_provider
from tests.backends.routes import record_of
from tests.emulator import STALL, Answer, Emulator, completion, refusal
from tests.emulator.asking import MODEL, WAYS, ask


@pytest.fixture(scope="module")
def server():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def priced(server):
    """A provider at 1 and 10 dollars per million tokens of prompt and reply."""
    server.reset()
    server.api_key = None
    server.always(completion("Hi"))
    return record_of(server, "priced")


REQUEST = ChatRequest(
    MODEL, (Message("user", (Text("Hello there"),)),), sampling=SamplingParams(max_tokens=100)
)


def limited(provider, counters=None, **limits):
    return create_backend(provider, limits=Limits(**limits), counters=counters, timeout=20, max_retries=0)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_could_exceed_the_budget_is_not_sent(server, priced, way):
    estimate = estimate_cost(priced, REQUEST)
    assert 0.001 < estimate < 0.0011  # 100 tokens of reply at 10 dollars per million, and a few of prompt
    with pytest.raises(BudgetExceededError, match=r"Nothing was sent.*\[priced") as caught:
        ask(limited(priced, max_cost_usd=estimate / 2), way, REQUEST)
    assert caught.value.estimate_usd == estimate
    assert not server.requests


@pytest.mark.parametrize("way", WAYS)
def test_what_the_reply_cost_counts_and_not_the_estimate(server, priced, way):
    counters = CallCounters()
    backend = limited(priced, counters, max_cost_usd=1)
    cost = ask(backend, way, REQUEST).usage.cost_usd
    assert cost
    assert counters.spent_usd == pytest.approx(cost)
    ask(backend, way, REQUEST)
    assert counters.spent_usd == pytest.approx(2 * cost)


@pytest.mark.parametrize("way", ["complete", "astream"])
def test_a_refused_call_costs_nothing_and_one_that_timed_out_its_estimate(server, priced, way):
    counters = CallCounters()
    server.script(refusal(500), Answer((STALL,)))
    backend = create_backend(
        priced, limits=Limits(max_cost_usd=1), counters=counters, timeout=0.8, max_retries=0
    )
    with pytest.raises(Exception, match="500"):
        ask(backend, way, REQUEST)
    assert counters.spent_usd == 0
    with pytest.raises(RequestTimeoutError):
        ask(backend, way, REQUEST)
    assert counters.spent_usd == pytest.approx(estimate_cost(priced, REQUEST))


def test_a_model_without_a_price_is_refused_and_one_on_this_machine_costs_nothing():
    with pytest.raises(ConfigurationError, match="has no price"):
        estimate_cost(find_provider("openai-compatible"), ChatRequest("m", REQUEST.messages))
    assert estimate_cost(find_provider("local"), ChatRequest("tiny", REQUEST.messages)) == 0


def test_64_threads_never_spend_more_than_the_budget(server, priced):
    budget = 20.5 * estimate_cost(priced, REQUEST)
    counters = CallCounters()
    backend = limited(priced, counters, max_cost_usd=budget)
    cost = ask(backend, "complete", REQUEST).usage.cost_usd
    highest = 0.0

    def call(_):
        nonlocal highest
        try:
            ask(backend, "complete", REQUEST)
        except BudgetExceededError:
            return False
        finally:
            highest = max(highest, counters.spent_usd)
        return True

    with ThreadPoolExecutor(64) as threads:
        answered = 1 + sum(threads.map(call, range(600)))
    assert answered == len(server.requests) < 601
    assert counters.spent_usd == pytest.approx(answered * cost)
    assert highest <= budget
    # What is left is less than what one more call may cost: the budget is used.
    assert budget - counters.spent_usd < estimate_cost(priced, REQUEST) * 64


@pytest.mark.parametrize("way", ["complete", "astream"])
def test_no_more_calls_run_at_once_than_allowed(server, priced, way):
    running, most, lock = 0, 0, threading.Lock()

    def count(received):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)  # the emulator's thread
        with lock:
            running -= 1
        return completion("Hi")

    server.always(count)
    backend = limited(priced, max_concurrency=3)
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda _: ask(backend, way, REQUEST).text, range(24)))
    assert replies == ["Hi"] * 24
    assert most <= 3


async def test_tasks_wait_their_turn_without_blocking_the_loop_and_a_cancelled_one_lets_go(server, priced):
    counters = CallCounters()
    server.script(Answer((STALL,)))
    backend = limited(priced, counters, max_concurrency=1)
    first = asyncio.create_task(backend.acomplete(REQUEST))
    await asyncio.to_thread(server.wait_for_requests)
    second, third = (asyncio.create_task(backend.acomplete(REQUEST)) for _ in range(2))
    await asyncio.sleep(0.02)
    second.cancel()
    first.cancel()
    assert (await asyncio.wait_for(third, 10)).text == "Hi"
    assert (await backend.acomplete(REQUEST)).text == "Hi"


@pytest.mark.parametrize("way", WAYS)
def test_waiting_counts_for_the_deadline(server, priced, way):
    counters = CallCounters()
    counters.enter(1)
    limits = Limits(max_concurrency=1)
    backend = create_backend(priced, limits=limits, counters=counters, deadline=0.1)
    with pytest.raises(RequestTimeoutError, match="while it waited"):
        ask(backend, way, REQUEST)
    assert not server.requests
    counters.leave()
    assert ask(create_backend(priced, limits=limits, counters=counters), way, REQUEST).text == "Hi"


def test_requests_of_a_minute_are_spread_behind_the_limit(monkeypatch):
    counters = CallCounters()
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    waits = [counters.take_slot(3) for _ in range(7)]
    assert waits == [0, 0, 0, 60, 60, 60, 120]
    assert counters.take_slot(3, max_wait=120) is None  # and takes none
    now = 161.0
    assert counters.take_slot(3) == 59  # the three of second 160 are in the last minute


@pytest.mark.parametrize("way", WAYS)
def test_a_rate_that_leaves_no_time_is_refused_at_once(server, priced, way):
    counters = CallCounters()
    backend = create_backend(priced, limits=Limits(requests_per_minute=1), counters=counters, deadline=20)
    assert ask(backend, way, REQUEST).text == "Hi"
    started = time.monotonic()
    with pytest.raises(RequestTimeoutError, match="requests_per_minute"):
        ask(backend, way, REQUEST)
    assert time.monotonic() - started < 10


def test_a_pickled_count_goes_on_with_the_cost_and_without_calls():
    counters = CallCounters()
    counters.settle(0, 1.5)
    counters.enter(1)
    loaded = pickle.loads(pickle.dumps(counters))  # noqa: S301 - made here
    assert loaded.spent_usd == 1.5
    assert loaded.enter(1).done()


@pytest.mark.parametrize(
    "limits",
    [
        {"max_cost_usd": -1},
        {"max_cost_usd": float("nan")},
        {"requests_per_minute": 0},
        {"max_concurrency": 1.5},
    ],
)
def test_limits_that_can_not_be_are_refused(limits):
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Limits(**limits)

"""Several providers as one: who answers, who is asked again and when, and what is told of it."""

import time
from collections import Counter
from dataclasses import replace

import pytest

from llama_vision.backends import Limits, create_backend
from llama_vision.backends.circuit_breaker import CircuitBreaker, close_breakers
from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ContextTooLongError,
    InvalidRequestError,
    LlamaVisionError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamError,
    UnknownProviderError,
    UnsupportedInputError,
)
from llama_vision.core.messages import Image, Message, Text
from llama_vision.core.request import ChatRequest
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.images.constraints import ImageConstraints
from llama_vision.providers.route import Route, Target, resolve_provider
from tests.backends.routes import Clock, record_of, records_of, route_backend
from tests.emulator import STALL, Answer, Emulator, Wait, chunks, completion, event_stream, refusal, sse
from tests.emulator.asking import MODEL, STREAMED_WAYS, WAYS, ask, question

OTHER_ID = "meta-llama/Llama-3.2-90B-Vision-Instruct"
STALLED = Answer((STALL,), headers={"content-type": "text/event-stream"})


@pytest.fixture(scope="module")
def servers():
    with Emulator() as first, Emulator() as second:
        yield first, second


@pytest.fixture
def pair(servers):
    close_breakers()
    for server in servers:
        server.reset()
    servers[1].always(completion("From the second."))
    return servers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "failure",
    [
        refusal(429),
        refusal(500),
        refusal(402),
        Answer((), status=503),
        event_stream({"error": {"code": 500}}),
    ],
    ids=["429", "500", "402", "503", "in-band"],
)
def test_the_next_provider_takes_over_before_the_first_token(pair, way, failure):
    pair[0].always(failure)
    reply = ask(route_backend(pair), way)
    assert reply.text == "From the second."
    assert reply.metadata["provider"] == "second"
    (tried,) = reply.metadata["tried"]
    assert tried["provider"] == "first"
    assert tried["model"] == MODEL
    assert len(pair[0].requests) == len(pair[1].requests) == 1


@pytest.mark.parametrize("way", WAYS)
def test_the_first_provider_answers_where_it_can_and_nothing_is_said_of_others(pair, way):
    pair[0].always(completion("From the first."))
    reply = ask(route_backend(pair), way)
    assert reply.text == "From the first."
    assert reply.metadata == {"provider": "first"}
    assert not pair[1].requests


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (refusal(401), AuthenticationError),
        (refusal(400), InvalidRequestError),
        (
            refusal(400, {"error": {"message": "maximum context length is 10 tokens"}}),
            ContextTooLongError,
        ),
    ],
    ids=["401", "400", "overflow"],
)
def test_a_mistake_is_raised_and_not_hidden_by_another_provider(pair, way, failure, kind):
    pair[0].always(failure)
    with pytest.raises(kind) as caught:
        ask(route_backend(pair), way)
    assert [entry["provider"] for entry in caught.value.tried] == ["first"]
    assert not pair[1].requests


@pytest.mark.parametrize("way", STREAMED_WAYS)
def test_after_the_first_token_the_error_is_told_with_the_partial_reply(pair, way):
    beginning = list(chunks(completion("One two three")))[:2]
    pair[0].always(event_stream(*beginning))
    with pytest.raises(StreamError) as caught:
        ask(route_backend(pair), way)
    assert caught.value.partial is not None
    assert caught.value.partial.text
    assert not pair[1].requests


@pytest.mark.parametrize("way", ["complete", "astream"])  # the other two read a first token in the same way
def test_a_late_first_token_makes_the_next_one_take_over_in_time(pair, way):
    pair[0].always(STALLED)
    started = time.monotonic()
    reply = ask(route_backend(pair, settings={"first_token_timeout": 0.8}), way)
    assert reply.text == "From the second."
    assert 0.8 <= time.monotonic() - started < 10
    (tried,) = reply.metadata["tried"]
    assert tried["error"] == "RequestTimeoutError"
    assert tried["may_be_billed"]


@pytest.mark.parametrize("way", WAYS)
def test_a_hedge_is_sent_after_the_delay_and_the_first_token_wins(pair, way):
    pair[0].always(Answer((Wait(20), sse("[DONE]")), headers={"content-type": "text/event-stream"}))
    started = time.monotonic()
    reply = ask(route_backend(pair, settings={"hedge_after": 0.2}), way)
    assert reply.text == "From the second."
    assert 0.2 <= time.monotonic() - started < 15
    (tried,) = reply.metadata["tried"]
    assert (tried["provider"], tried["error"], tried["may_be_billed"]) == ("first", "Overtaken", True)


@pytest.mark.parametrize("way", WAYS)
def test_no_hedge_is_sent_where_the_first_token_comes_in_time(pair, way):
    pair[0].always(completion("From the first."))
    reply = ask(route_backend(pair, settings={"hedge_after": 10}), way)
    assert reply.metadata == {"provider": "first"}
    assert not pair[1].requests


@pytest.mark.parametrize("way", WAYS)
def test_where_all_fail_the_error_says_who_was_asked(pair, way):
    pair[0].always(refusal(500))
    pair[1].always(refusal(429))
    with pytest.raises(RateLimitError, match=r"first \(ServerError\), second \(RateLimitError\)") as caught:
        ask(route_backend(pair), way)
    assert [entry["status_code"] for entry in caught.value.tried] == [500, 429]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow_beyond(1)
def test_retries_ask_all_of_them_again(pair, way):
    pair[0].always(refusal(500))
    pair[1].script(refusal(500), completion("At last."))
    reply = ask(route_backend(pair, max_retries=1), way)
    assert reply.text == "At last."
    assert [entry["provider"] for entry in reply.metadata["tried"]] == ["first", "second", "first"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow_beyond(1)
def test_a_deadline_is_for_all_attempts_together(pair, way):
    pair[0].always(refusal(500))
    pair[1].always(STALLED)
    started = time.monotonic()
    with pytest.raises(LlamaVisionError) as caught:
        ask(route_backend(pair, deadline=0.5, max_retries=5), way)
    assert time.monotonic() - started < 5
    assert isinstance(caught.value, RequestTimeoutError)


def test_a_provider_is_left_alone_for_its_retry_after_by_all_backends_of_the_process(pair):
    pair[0].always(refusal(429, retry_after=0.6))
    assert ask(route_backend(pair), "complete").metadata["provider"] == "second"
    cooled = time.monotonic() + 0.6
    while time.monotonic() < pair[0].requests[0].at + 0.55:
        assert ask(route_backend(pair), "complete").text == "From the second."
    pair[0].always(completion("Back."))
    time.sleep(max(0.0, cooled + 0.02 - time.monotonic()))
    assert ask(route_backend(pair), "complete").text == "Back."
    first, second = pair[0].requests
    assert second.at - first.at >= 0.6


def test_where_all_cool_down_nothing_is_sent_and_the_true_reason_is_told(pair):
    for server in pair:
        server.always(refusal(429, retry_after=100))
    with pytest.raises(RateLimitError):
        ask(route_backend(pair), "complete")
    with pytest.raises(RateLimitError, match=r"cools down for another .* s, after: .*Scripted 429") as caught:
        ask(route_backend(pair, max_retries=2), "complete")
    assert 99 < (caught.value.retry_after or 0) <= 100
    assert [len(server.requests) for server in pair] == [1, 1]


def test_a_call_waits_for_a_short_cool_down_where_it_may_retry(pair):
    for server in pair:
        server.script(refusal(429, retry_after=0.7))
        server.always(completion("Again."))
    started = time.monotonic()
    assert ask(route_backend(pair, max_retries=1), "complete").text == "Again."
    assert time.monotonic() - started >= 0.7


def test_failures_in_a_row_open_the_circuit_and_one_call_tries_whether_it_is_over():
    clock = Clock()
    breaker = CircuitBreaker(clock)
    for _ in range(2):
        breaker.record_failure(ServerError("Down"), max_failures=3, cool_down=30)
        assert breaker.try_acquire(30)
    breaker.record_failure(ServerError("Down"), max_failures=3, cool_down=30)
    assert not breaker.try_acquire(30)
    assert breaker.remaining() == 30
    clock.now += 29.9
    assert not breaker.try_acquire(30)
    clock.now += 0.1
    assert breaker.try_acquire(30)  # the trial
    assert not breaker.try_acquire(30)  # the others wait for its outcome
    breaker.record_success()
    assert breaker.try_acquire(30)
    assert breaker.remaining() == 0


def test_a_reply_to_an_earlier_call_ends_no_cool_down():
    clock = Clock()
    breaker = CircuitBreaker(clock)
    error = RateLimitError("Later")
    error.retry_after = 10
    breaker.record_failure(error, max_failures=3, cool_down=30)
    breaker.record_success()  # of a call that was under way at the same time
    assert not breaker.try_acquire(30)
    clock.now += 10
    assert breaker.try_acquire(30)
    breaker.record_success()
    assert breaker.try_acquire(30)


def test_a_shorter_cool_down_ends_no_longer_one():
    clock = Clock()
    breaker = CircuitBreaker(clock)
    long, short = RateLimitError("Later"), RateLimitError("Soon")
    long.retry_after, short.retry_after = 60, 1
    breaker.record_failure(long, max_failures=3, cool_down=30)
    breaker.record_failure(short, max_failures=3, cool_down=30)
    assert breaker.remaining() == 60


def test_a_refused_call_has_the_class_of_the_failure():
    breaker = CircuitBreaker(Clock())
    breaker.record_failure(ConnectionFailedError("No connection"), max_failures=1, cool_down=5)
    error = breaker.refusal()
    assert type(error) is ConnectionFailedError
    assert "another 5 s, after: No connection" in str(error)


@pytest.mark.parametrize("way", WAYS)
def test_the_request_is_adapted_for_each_provider(pair, way):
    first, second = records_of(pair)
    one_image = replace(first, image_rules=ImageConstraints(max_count=1))
    second = record_of(pair[1], "second", model=OTHER_ID)
    images = tuple(
        Image(SAMPLE_IMAGES[name].read_bytes(), media_type="image/png") for name in ("circle", "shapes")
    )
    request = ChatRequest(MODEL, (Message("user", (Text("What?"), *images)),))
    reply = ask(create_backend(Route([one_image, second]), max_retries=0), way, request)
    assert reply.metadata["tried"][0]["error"] == "UnsupportedInputError"
    assert not pair[0].requests  # nothing was sent there
    assert pair[1].requests[0].body["model"] == OTHER_ID
    assert len(pair[1].requests[0].images) == 2


def test_where_another_one_fails_that_is_the_reason_and_not_what_the_last_one_can_not_express(pair):
    first, second = records_of(pair)
    no_images = replace(second, image_rules=ImageConstraints(max_count=0))
    image = Image(SAMPLE_IMAGES["circle"].read_bytes(), media_type="image/png")
    request = ChatRequest(MODEL, (Message("user", (Text("What?"), image)),))
    pair[0].always(refusal(429))
    with pytest.raises(RateLimitError):
        ask(create_backend(Route([first, no_images]), max_retries=0), "complete", request)
    with pytest.raises(UnsupportedInputError):
        ask(create_backend(Route([no_images]), max_retries=3), "complete", request)


def test_weights_draw_who_is_asked_first(pair):
    for server in pair:
        server.always(completion("Hi"))
    first, second = records_of(pair)
    route = Route([Target(first, weight=3), Target(second, weight=1)])
    backend = create_backend(route)
    asked = Counter(ask(backend, "complete").metadata["provider"] for _ in range(200))
    assert 110 < asked["first"] < 185  # 150 expected
    only = create_backend(Route([Target(first, weight=0), second]))
    assert {ask(only, "complete").metadata["provider"] for _ in range(5)} == {"second"}


def test_a_key_goes_to_the_first_provider_only(pair):
    first, second = records_of(pair)
    pair[0].always(refusal(500))
    ask(create_backend(Route([first, second]), api_key="sk-of-the-first", max_retries=0), "complete")
    assert pair[0].requests[0].headers["authorization"] == "Bearer sk-of-the-first"
    assert "authorization" not in pair[1].requests[0].headers


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"base_url": "http://localhost:1/v1"}, "Target"),
        ({"account_id": "acc"}, "account_id"),
        ({"headers": {"Authorization": "Bearer x"}}, "would be sent to all"),
        ({"local": {"max_batch_size": 2}}, "max_batch_size"),
    ],
)
def test_what_belongs_to_one_provider_is_refused_for_several(options, text):
    with pytest.raises(ConfigurationError, match=text):
        create_backend(Route(["deepinfra", "openrouter"]), **options)


@pytest.mark.parametrize(
    ("targets", "settings", "text"),
    [
        ([], {}, "no provider"),
        (["deepinfra"], {"first_token_timeout": 0}, "first_token_timeout"),
        (["deepinfra"], {"hedge_after": -1}, "hedge_after"),
        (["deepinfra"], {"max_failures": 0}, "max_failures"),
        ([Target("deepinfra", weight=-1)], {}, "weight"),
        ([Target("deepinfra", weight=0)], {}, "weights"),
    ],
)
def test_a_route_that_can_not_be_is_refused(targets, settings, text):
    with pytest.raises(ConfigurationError, match=text):
        Route(targets, **settings)


def test_an_unknown_provider_of_a_list_is_named():
    with pytest.raises(UnknownProviderError, match="'deepinfa'"):
        resolve_provider(["local", "deepinfa"])


def test_attempts_are_limited_one_by_one(pair):
    pair[0].always(refusal(500))
    backend = route_backend(pair, limits=Limits(max_cost_usd=1.0))
    assert ask(backend, "complete", question()).metadata["provider"] == "second"


def test_closing_closes_all(pair):
    backend = route_backend(pair)
    pair[0].always(refusal(500))
    ask(backend, "complete")
    backend.close()
    assert "first, second" in repr(backend)

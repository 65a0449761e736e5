"""What is tried again, and after how long."""

import email.utils
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.backends.http.retry import RetryState, parse_retry_after, parse_retry_headers
from llama_vision.core import errors
from llama_vision.core.errors import ConnectionFailedError, RateLimitError, RequestTimeoutError, ServerError


def asking_for(seconds, kind=RateLimitError):
    error = kind("slow down")
    error.retry_after = seconds
    return error


@pytest.mark.parametrize("kind", [ConnectionFailedError, RateLimitError, ServerError])
def test_failures_without_a_reply_are_tried_again(kind):
    assert RetryState(1).next_delay(kind("it broke")) > 0


@pytest.mark.parametrize(
    "kind",
    [
        RequestTimeoutError,
        errors.InvalidRequestError,
        errors.AuthenticationError,
        errors.InsufficientCreditsError,
        errors.PermissionDeniedError,
        errors.ModelNotFoundError,
        errors.StatusError,
        errors.StreamError,
        errors.TruncatedStreamError,
        errors.MalformedReplyError,
        errors.ConfigurationError,
        errors.UnsupportedInputError,
        errors.ImageError,
        errors.LocalModelError,
    ],
)
def test_everything_else_is_raised_at_once(kind):
    retries, error = RetryState(5), kind("it broke")
    with pytest.raises(kind) as caught:
        retries.next_delay(error)
    assert caught.value is error
    assert retries.attempts_left == 5


@pytest.mark.parametrize(("made", "longest"), [(0, 0.5), (1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (20, 8)])
def test_delays_double_up_to_a_longest_one(made, longest):
    delays = [RetryState(1, made).next_delay(ServerError("it broke")) for _ in range(200)]
    assert longest / 2 <= min(delays) <= max(delays) <= longest


def test_the_next_delay_is_longer():
    retries = RetryState(4)
    for longest in (0.5, 1, 2, 4):
        assert longest / 2 <= retries.next_delay(ServerError("it broke")) <= longest


def test_delays_differ_so_that_clients_do_not_come_back_together():
    assert len({RetryState(1).next_delay(ServerError("it broke")) for _ in range(20)}) > 1


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_only_so_many_attempts_are_made(allowed):
    retries, error = RetryState(allowed), ServerError("it broke")
    for _ in range(allowed):
        retries.next_delay(error)
    with pytest.raises(ServerError) as caught:
        retries.next_delay(error)
    assert caught.value is error
    assert (retries.attempts_left, retries.attempts_made) == (0, allowed)


@pytest.mark.parametrize("seconds", [0, 0.2, 5, 60])
@pytest.mark.parametrize("kind", [RateLimitError, ServerError])
def test_a_wish_is_met_exactly(kind, seconds):
    assert RetryState(1).next_delay(asking_for(seconds, kind)) == seconds


@pytest.mark.parametrize("seconds", [60.1, 3600])
def test_a_wish_for_too_much_patience_is_handed_on(seconds):
    error = asking_for(seconds)
    with pytest.raises(RateLimitError) as caught:
        RetryState(5).next_delay(error)
    assert caught.value is error
    assert error.retry_after == seconds


def test_a_wish_does_not_make_an_error_worth_repeating():
    with pytest.raises(errors.InvalidRequestError):
        RetryState(5).next_delay(asking_for(1, errors.InvalidRequestError))


def test_after_a_wish_the_own_delays_go_on_growing():
    retries = RetryState(2)
    retries.next_delay(asking_for(0))
    assert 0.5 <= retries.next_delay(ServerError("it broke")) <= 1


def test_nobody_waits_beyond_the_deadline():
    deadline = time.monotonic() + 30
    assert RetryState(1, deadline=deadline).next_delay(asking_for(10)) == 10
    retries, error = RetryState(1, deadline=deadline), asking_for(31)
    with pytest.raises(RateLimitError) as caught:
        retries.next_delay(error)
    assert caught.value is error
    assert (retries.attempts_left, retries.attempts_made) == (1, 0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "20", "retry-after": "7"}, 0.02),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({}, None),
    ],
)
def test_milliseconds_are_more_exact_than_seconds(headers, seconds):
    assert parse_retry_headers(headers) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("5", 5), (" 7 ", 7), ("1.5", 1.5), ("-3", 0), ("120", 120), ("1e2", 100)],
)
def test_seconds_are_read(value, seconds):
    assert parse_retry_after(value) == seconds


@pytest.mark.parametrize("ahead", [5, 30, 3600])
@pytest.mark.parametrize("form", ["GMT", "zone", "asctime"])
def test_a_date_is_read_as_seconds_from_now(ahead, form):
    moment = time.time() + ahead
    value = {
        "GMT": email.utils.formatdate(moment, usegmt=True),
        "zone": time.strftime("%a, %d %b %Y %H:%M:%S +0200", time.gmtime(moment + 7200)),
        "asctime": time.asctime(time.gmtime(moment)) + " GMT",
    }[form]
    assert parse_retry_after(value) == pytest.approx(ahead, abs=2)


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_a_date_that_has_passed_means_now(value):
    assert parse_retry_after(value) == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "5 s",
        "5s",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "Wed, 32 Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999999999",
    ],
)
def test_rubbish_is_no_wish(value):
    assert parse_retry_after(value) is None


DATE_WORDS = st.lists(
    st.sampled_from(["Wed,", "21", "Oct", "2015", "07:28:00", "GMT", "-0000", "0", "99999999999", "+9999", "24:60"])
    | st.text(max_size=5)
)  # fmt: skip


@settings(deadline=None)
@given(st.text() | DATE_WORDS.map(" ".join) | st.floats().map(str))
def test_any_header_is_a_wish_of_at_least_0_or_none(value):
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds < float("inf")

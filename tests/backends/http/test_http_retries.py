"""What is asked again, after how long, and what is never."""

import itertools
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate

import httpx
import pytest

from llama_vision.backends.http.error_mapping import map_transport_error
from llama_vision.backends.http.retry import RetryState, parse_retry_after
from llama_vision.core.errors import (
    AuthenticationError,
    ConnectionFailedError,
    ContextTooLongError,
    InsufficientCreditsError,
    InvalidRequestError,
    LlamaVisionError,
    MalformedReplyError,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StatusError,
)
from tests.emulator import HANG_UP, NO_ANSWER, STALL, Answer, Emulator, completion, page, refusal
from tests.emulator.asking import WAYS, ask, backend_for

NOT_RETRIED = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    405: InvalidRequestError,
    413: InvalidRequestError,
    422: InvalidRequestError,
}
RETRIED = {
    408: ServerError,
    409: ServerError,
    429: RateLimitError,
    500: ServerError,
    502: ServerError,
    503: ServerError,
    504: ServerError,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def deaf_address() -> Iterator[str]:
    """An address at which connections are refused: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def waits(emulator: Emulator) -> list[float]:
    return [later.at - earlier.at for earlier, later in itertools.pairwise(emulator.requests)]


@pytest.mark.parametrize("status", RETRIED)
def test_a_passing_failure_is_asked_again(emulator: Emulator, way: str, status: int):
    emulator.script(refusal(status, retry_after=0), completion("at last"))
    assert ask(backend_for(emulator), way).text == "at last"
    assert len(emulator.requests) == 2
    assert emulator.requests[0].content == emulator.requests[1].content


@pytest.mark.parametrize(("status", "kind"), RETRIED.items())
def test_a_failure_that_does_not_pass_is_raised_in_the_end(
    emulator: Emulator, way: str, status: int, kind: type
):
    emulator.script(*[refusal(status, retry_after=0)] * 3)
    with pytest.raises(kind, match=f"Scripted {status}") as caught:
        ask(backend_for(emulator, max_retries=2), way)
    assert caught.value.retryable
    assert caught.value.status_code == status
    assert len(emulator.requests) == 3


def test_a_server_that_hangs_up_without_a_word_is_asked_again(emulator: Emulator, way: str):
    emulator.script(NO_ANSWER, completion("at last"))
    assert ask(backend_for(emulator), way).text == "at last"
    assert len(emulator.requests) == 2


@pytest.mark.parametrize("way", ["complete", "astream"])
def test_a_server_that_always_hangs_up_is_a_failed_connection(emulator: Emulator, way: str):
    emulator.script(NO_ANSWER, NO_ANSWER)
    with pytest.raises(ConnectionFailedError):
        ask(backend_for(emulator, max_retries=1), way)
    assert len(emulator.requests) == 2


@pytest.mark.parametrize(("status", "kind"), NOT_RETRIED.items())
def test_a_failure_for_good_is_not_asked_again(emulator: Emulator, way: str, status: int, kind: type):
    emulator.script(refusal(status))
    with pytest.raises(kind, match=rf"Scripted {status} \[deepinfra, meta-llama") as caught:
        ask(backend_for(emulator), way)
    assert type(caught.value) is kind
    assert not caught.value.retryable
    assert caught.value.status_code == status
    assert f"Scripted {status}" in caught.value.body
    assert len(emulator.requests) == 1


def test_a_prompt_that_is_too_long_is_its_own_error(emulator: Emulator, way: str):
    emulator.script(
        refusal(400, {"error": {"message": "This model's maximum context length is 131072 tokens."}})
    )
    with pytest.raises(ContextTooLongError):
        ask(backend_for(emulator), way)


def test_a_wrong_key_is_told_by_the_emulator_as_by_deepinfra(emulator: Emulator, way: str):
    with pytest.raises(AuthenticationError, match="Not authenticated"):
        ask(backend_for(emulator, api_key="wrong"), way)
    assert len(emulator.requests) == 1


def test_a_page_of_a_proxy_keeps_its_status(emulator: Emulator, way: str):
    emulator.script(page("<html><title>502 Bad Gateway</title><body>nginx</body></html>", 502))
    with pytest.raises(ServerError, match="502 Bad Gateway"):
        ask(backend_for(emulator, max_retries=0), way)


@pytest.mark.slow_beyond(1)
def test_the_wait_is_what_the_provider_asks_for(emulator: Emulator, way: str):
    emulator.script(refusal(429, retry_after=0.6), completion("at last"))
    ask(backend_for(emulator), way)
    (wait,) = waits(emulator)
    assert 0.6 <= wait < 3  # without being asked it would have been at most 0.5


@pytest.mark.slow_beyond(1)
def test_the_wait_may_be_asked_for_in_milliseconds(emulator: Emulator, way: str):
    headers = {"retry-after-ms": "650", "retry-after": "30"}
    emulator.script(replace(refusal(429), headers=headers), completion("at last"))
    ask(backend_for(emulator), way)
    (wait,) = waits(emulator)
    assert 0.65 <= wait < 3


@pytest.mark.parametrize("value", ["soon", "", "nan"])
def test_rubbish_in_milliseconds_leaves_the_seconds(emulator: Emulator, way: str, value: str):
    emulator.script(replace(refusal(429), headers={"retry-after-ms": value, "retry-after": "7"}))
    with pytest.raises(RateLimitError) as caught:
        ask(backend_for(emulator, max_retries=0), way)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_says_where_to_and_is_not_followed(emulator: Emulator, way: str, status: int):
    location = f"https://other.test/{emulator.api_key}/v1/chat/completions?token=hidden"
    moved = page("<html><title>Moved</title></html>", status)
    emulator.script(replace(moved, headers={**moved.headers, "location": location}))
    with pytest.raises(
        StatusError,
        match=rf"{status}: It redirects to https://other\.test/\[key\]/v1/chat/completions: set base_url",
    ) as caught:
        ask(backend_for(emulator), way)
    assert "hidden" not in str(caught.value)
    assert len(emulator.requests) == 1


def test_a_redirect_that_says_nothing_keeps_its_page(emulator: Emulator, way: str):
    emulator.script(page("<html><title>Moved</title></html>", 302))
    with pytest.raises(StatusError, match="302: Moved"):
        ask(backend_for(emulator), way)


def test_the_wait_is_short_where_the_provider_asks_for_none(emulator: Emulator, way: str):
    emulator.script(refusal(500), completion("at last"))
    ask(backend_for(emulator), way)
    (wait,) = waits(emulator)
    assert 0.25 <= wait < 2


def test_a_provider_that_asks_for_too_much_patience_is_not_waited_for(emulator: Emulator, way: str):
    emulator.script(refusal(429, retry_after=3600))
    begun = time.monotonic()
    with pytest.raises(RateLimitError) as caught:
        ask(backend_for(emulator), way)
    assert time.monotonic() - begun < 5
    assert caught.value.retry_after == 3600
    assert len(emulator.requests) == 1


def test_without_retries_a_failure_is_raised_at_once(emulator: Emulator, way: str):
    emulator.script(refusal(503, retry_after=30))
    with pytest.raises(ServerError) as caught:
        ask(backend_for(emulator, max_retries=0), way)
    assert caught.value.retry_after == 30
    assert len(emulator.requests) == 1


def test_every_call_has_its_own_number_of_retries(emulator: Emulator, way: str):
    backend = backend_for(emulator, max_retries=1)
    for _ in range(3):
        emulator.script(refusal(503, retry_after=0), completion("at last"))
        assert ask(backend, way).text == "at last"


def test_a_refused_connection_is_tried_again_after_a_while(deaf_address: str, emulator: Emulator, way: str):
    begun = time.monotonic()
    with pytest.raises(ConnectionFailedError) as caught:
        ask(backend_for(emulator, base_url=deaf_address, max_retries=1), way)
    assert 0.25 <= time.monotonic() - begun < 3
    assert caught.value.retryable


class CountingTransport(httpx.HTTPTransport):
    count = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        return super().handle_request(request)


@pytest.mark.parametrize("max_retries", [0, 1])
def test_a_refused_connection_is_tried_as_often_as_allowed(
    deaf_address: str, emulator: Emulator, max_retries: int
):
    transport = CountingTransport()
    with httpx.Client(transport=transport) as client:
        backend = backend_for(emulator, base_url=deaf_address, max_retries=max_retries, http_client=client)
        with pytest.raises(ConnectionFailedError):
            ask(backend, "complete")
    assert transport.count == max_retries + 1


def test_an_answer_that_does_not_come_is_not_asked_for_again(emulator: Emulator, way: str):
    emulator.script(Answer((STALL,), status=None))
    with pytest.raises(RequestTimeoutError, match="timeout") as caught:
        ask(backend_for(emulator, timeout=0.2), way)
    assert caught.value.retryable  # the caller may want to
    assert emulator.wait_for_disconnect()
    assert len(emulator.requests) == 1


def test_a_whole_answer_that_stalls_is_not_asked_for_again(emulator: Emulator):
    for way in ("complete", "acomplete"):
        emulator.script(Answer((b'{"id": "1", ', STALL), headers={"content-type": "application/json"}))
        with pytest.raises(RequestTimeoutError):
            ask(backend_for(emulator, timeout=0.2), way)
    assert len(emulator.requests) == 2


@pytest.mark.parametrize("way", ["acomplete", "stream"])
def test_an_error_that_is_cut_off_is_a_failed_connection(emulator: Emulator, way: str):
    emulator.script(Answer((b'{"error": ', HANG_UP), 500, {"content-length": "100"}), completion("at last"))
    assert ask(backend_for(emulator), way).text == "at last"


@pytest.mark.parametrize("made", range(7))
def test_the_waits_double_up_to_a_limit_and_are_never_the_same(made: int):
    random.seed(made)
    longest = min(8.0, 0.5 * 2**made)
    delays = [
        RetryState(attempts_left=1, attempts_made=made).next_delay(ConnectionFailedError()) for _ in range(50)
    ]
    assert all(longest / 2 <= delay <= longest for delay in delays)
    assert len(set(delays)) > 40


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectTimeout("slow"), ConnectionFailedError),  # nothing was sent, so it may be tried again
        (httpx.PoolTimeout("slow"), ConnectionFailedError),
        (httpx.ConnectError("no such host"), ConnectionFailedError),
        (httpx.RemoteProtocolError("hung up"), ConnectionFailedError),
        (httpx.ReadTimeout("slow"), RequestTimeoutError),
        (httpx.WriteTimeout("slow"), RequestTimeoutError),
        (httpx.DecodingError("broken"), MalformedReplyError),
    ],
)
def test_every_failure_to_get_an_answer_is_one_of_ours(error: httpx.RequestError, kind: type):
    assert type(map_transport_error(error)) is kind


def test_each_wait_is_longer_until_no_retry_is_left():
    retries = RetryState(attempts_left=2)
    error = ServerError("busy")
    assert retries.next_delay(error) <= 0.5 <= retries.next_delay(error)
    with pytest.raises(ServerError, match="busy"):
        retries.next_delay(error)


@pytest.mark.parametrize(
    "error", [RequestTimeoutError(), InvalidRequestError(), StatusError(), LlamaVisionError()]
)
def test_what_may_have_been_answered_or_never_will_be_is_not_made_again(error: LlamaVisionError):
    with pytest.raises(type(error)):
        RetryState(attempts_left=5).next_delay(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("30", 30),
        (" 1.5 ", 1.5),
        ("-5", 0),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_read_as_seconds(value: str | None, seconds: float | None):
    assert parse_retry_after(value) == seconds


def test_retry_after_is_read_as_a_date():
    seconds = parse_retry_after(formatdate(time.time() + 50, usegmt=True))
    assert seconds is not None
    assert 45 < seconds <= 50

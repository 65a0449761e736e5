"""Answers that break off at any byte are never taken for whole ones, and leave no connection open.

Bytes that come twice or in another order can't always be told from real ones: the events of a stream have neither number
nor checksum, and two equal deltas are two words. What can be told is told; the rest is as the server says.
"""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from llama_vision.backends import create_backend
from llama_vision.backends.http import connection_pools
from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.reply import Reply
from llama_vision.providers import find_provider
from tests.chaos.breaking_server import BREAKS, FRAMINGS, Break, BreakingServer, raw_answer
from tests.emulator import ACCOUNT_ID
from tests.emulator.asking import STREAMED_WAYS, WAYS, aask, ask
from tests.fuzz.checks import check_reply
from tests.fuzz.inputs import DIALECTS, FuzzInput
from tests.quirks.talk import request
from tests.recorded_replies import RecordedReply, recorded_replies

CALLS_STREAMED = b"".join(
    b"data: " + json.dumps(payload).encode() + b"\n\n"
    for payload in (
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"n": 1'}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "2}"}}]}}]},
        {"choices": [{"delta": {"content": None}, "finish_reason": "tool_calls"}]},
    )
) + b"data: [DONE]\n\n"  # fmt: skip
NAMES = (
    *("deepinfra/hello", "aigateway/hello_streamed", "emulator-deepinfra/tool_call"),
    *("emulator-cloudflare/image", "cloudflare/new_york_streamed", "emulator-cloudflare/tool_call"),
)
REPLIES = {reply.name: reply for reply in recorded_replies() if reply.name in NAMES} | {
    "calls, streamed": RecordedReply("calls, streamed", "deepinfra", True, CALLS_STREAMED)
}
FEW = 7
AT_ONCE = 16


@cache
def raw(reply: str, framing: str) -> bytes:
    return raw_answer(REPLIES[reply].body, framing, streamed=REPLIES[reply].streamed)


@pytest.fixture(scope="module")
def server() -> Iterator[BreakingServer]:
    with BreakingServer(lambda planned: raw(planned.reply, planned.framing)) as running:
        yield running


def backend_at(server: BreakingServer, reply: str, timeout: float = 5.0):
    account = {"account_id": ACCOUNT_ID} if REPLIES[reply].provider == "cloudflare" else {}
    return create_backend(
        find_provider(REPLIES[reply].provider),
        base_url=server.base_url,
        api_key="key",
        timeout=timeout,
        max_retries=0,
        **account,
    )


def question_for(planned: Break):
    return request(REPLIES[planned.reply].provider, BreakingServer.ask_for(planned))


def told(reply: Reply) -> tuple[object, ...]:
    """What must not differ; usage may come after the reason for the end."""
    return reply.text, [(call.name, call.arguments) for call in reply.tool_calls], reply.finish_reason


def active_connections() -> list[str]:
    clients = [pool.client for pool in connection_pools._sync_pools.values()]
    clients += [pool.client for loop in connection_pools._loops.values() for pool in loop.pools.values()]
    pools = [getattr(client._transport, "_pool", None) for client in clients]
    return [
        repr(open_)
        for pool in pools
        if pool
        for open_ in pool.connections
        if not open_.is_idle() and not open_.is_closed()
    ]


def outcomes_of(server: BreakingServer, way: str, plans: list[Break]) -> list[Reply | LlamaVisionError]:
    """Ask for all of them, several at once, and see that nothing stays open."""
    backend = backend_at(server, plans[0].reply, timeout=0.1 if plans[0].kind == "stall" else 5.0)

    async def all_at_once() -> list[Reply | LlamaVisionError]:
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(planned: Break) -> Reply | LlamaVisionError:
            async with limit:
                try:
                    return await aask(backend, way, question_for(planned))
                except LlamaVisionError as error:
                    return error

        outcomes = await asyncio.gather(*map(one, plans))
        assert active_connections() == []
        return outcomes

    def one(planned: Break) -> Reply | LlamaVisionError:
        try:
            return ask(backend, way, question_for(planned))
        except LlamaVisionError as error:
            return error

    if way.startswith("a"):
        outcomes = asyncio.run(all_at_once())
    else:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            outcomes = list(threads.map(one, plans))
        assert active_connections() == []
    assert server.wait_until_closed()
    backend.close()
    return outcomes


def check(server: BreakingServer, way: str, reply: str, framing: str, kind: str, offsets: list[int]) -> None:
    whole = Break(reply, framing, "half-close", len(raw(reply, framing)))
    (expected,) = outcomes_of(server, way, [whole])
    assert isinstance(expected, Reply)
    outcomes = outcomes_of(server, way, [Break(reply, framing, kind, offset) for offset in offsets])
    for offset, outcome in zip(offsets, outcomes, strict=True):
        if isinstance(outcome, Reply):
            assert told(outcome) == told(expected), offset
        elif outcome.partial is not None:
            assert expected.text.startswith(outcome.partial.text), offset


CASES = [
    pytest.param(reply, way, framing, kind, id=f"{reply}-{way}-{framing}-{kind}")
    for reply in REPLIES
    for way in (STREAMED_WAYS if REPLIES[reply].streamed else WAYS)
    for framing in FRAMINGS
    for kind in BREAKS
    if framing == "chunked"
    or kind == "half-close"  # the end of the connection says different things to each framing
]


@pytest.mark.parametrize(("reply", "way", "framing", "kind"), CASES[::3])
def test_an_answer_that_breaks_off_somewhere_is_no_answer(server, reply, way, framing, kind):
    length = len(raw(reply, framing))
    first = sum(map(ord, reply + way + framing + kind)) % (length // FEW)
    check(server, way, reply, framing, kind, list(range(first, length, length // FEW)))


@pytest.mark.slow
@pytest.mark.parametrize(("reply", "way", "framing", "kind"), CASES)
def test_an_answer_that_breaks_off_at_any_byte_is_no_answer(server, reply, way, framing, kind):
    check(server, way, reply, framing, kind, list(range(len(raw(reply, framing)))))


def decoded(reply: RecordedReply, body: bytes) -> Reply | LlamaVisionError:
    """Read a body as a stream, or as a whole one."""
    given = FuzzInput(
        "cloudflare" if reply.provider == "cloudflare" else "openai-compatible", reply.streamed, body
    )
    stream = ReplyStream(DIALECTS[given.dialect].decoder("asked", {}), streamed=reply.streamed)
    try:
        if not reply.streamed:
            return stream.decode_body(body)
        return Reply.from_events([*stream.feed(body), *stream.close()])
    except LlamaVisionError as error:
        return error


@pytest.mark.parametrize(
    "size", [1, 7, pytest.param(2, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", REPLIES)
def test_bytes_that_come_twice_or_in_another_order_are_an_error_or_a_reply_of_the_same_kind(name, size):
    reply = REPLIES[name]
    body, expected = reply.body, decoded(reply, reply.body)
    for start in range(len(body) - size):
        first, second = body[start : start + size], body[start + size : start + 2 * size]
        for broken in (
            body[:start] + first * 2 + body[start + size :],
            body[:start] + second + first + body[start + 2 * size :],
        ):
            outcome = decoded(reply, broken)
            if isinstance(outcome, Reply):
                check_reply(outcome)
                # A call may have become unreadable, and is shown as that; none is made or lost.
                assert len(outcome.tool_calls) <= len(expected.tool_calls)


def events_of(reply: RecordedReply) -> list[bytes]:
    return [event + b"\n\n" for event in reply.body.split(b"\n\n")[:-1]]


STREAMS = [name for name, reply in REPLIES.items() if reply.streamed]


@pytest.mark.parametrize("name", STREAMS)
def test_an_end_that_comes_twice_ends_the_same_reply(name):
    events = events_of(REPLIES[name])
    expected = decoded(REPLIES[name], REPLIES[name].body)
    ends = [
        n
        for n, event in enumerate(events)
        if b'finish_reason":"' in event.replace(b" ", b"") or b"[DONE]" in event
    ]
    assert ends
    for end in ends:
        if b'content":"' in events[end].replace(b" ", b""):
            continue  # words that come twice are two
        outcome = decoded(REPLIES[name], b"".join([*events[: end + 1], *events[end:]]))
        assert isinstance(outcome, Reply)
        assert told(outcome) == told(expected)


@pytest.mark.parametrize("number", range(3))
def test_a_fragment_of_a_call_that_comes_twice_does_not_run_it_twice_or_with_other_arguments(number):
    events = events_of(REPLIES["calls, streamed"])
    outcome = decoded(REPLIES["calls, streamed"], b"".join([*events[: number + 1], *events[number:]]))
    assert isinstance(outcome, Reply)
    (call,) = outcome.tool_calls
    if number == 0:  # the name again
        assert call.parsed() == {"n": 12}
    else:
        with pytest.raises(ValueError):
            call.parsed()

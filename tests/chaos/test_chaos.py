"""Answers that break off at any byte are never taken for whole ones, and leave no connection open."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from llama_vision.backends import create_backend
from llama_vision.backends.http import connection_pools
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.reply import Reply
from llama_vision.providers import find_provider
from tests.chaos.breaking_server import BREAKS, FRAMINGS, Break, BreakingServer, raw_answer
from tests.emulator import ACCOUNT_ID
from tests.emulator.asking import STREAMED_WAYS, WAYS, aask, ask
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


@pytest.mark.parametrize(("reply", "way", "framing", "kind"), CASES)
def test_an_answer_that_breaks_off_somewhere_is_no_answer(server, reply, way, framing, kind):
    length = len(raw(reply, framing))
    first = sum(map(ord, reply + way + framing + kind)) % (length // FEW)
    check(server, way, reply, framing, kind, list(range(first, length, length // FEW)))


@pytest.mark.slow
@pytest.mark.parametrize(("reply", "way", "framing", "kind"), CASES)
def test_an_answer_that_breaks_off_at_any_byte_is_no_answer(server, reply, way, framing, kind):
    check(server, way, reply, framing, kind, list(range(len(raw(reply, framing)))))

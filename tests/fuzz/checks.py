"""What holds for every reply, however broken it is."""

import json
from dataclasses import dataclass
from typing import Any

from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.core.errors import LlamaVisionError, StatusError
from llama_vision.core.events import Event, Finished, Started
from llama_vision.core.messages import Message, Text
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from tests.fuzz.inputs import DIALECTS, FuzzInput
from tests.toolcalls.cases_record import TOOLS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller gets.

    Attributes:
        error: Class and text of the error; None where there is none.
        reply: The reply, or what had arrived of it, without ids that were made up.
    """

    error: str | None
    reply: Any


def read(given: FuzzInput, pieces: list[bytes] | None = None) -> Outcome:
    """Read a reply in pieces, or, without any, as a whole one is read."""
    dialect = DIALECTS[given.dialect]
    reply = ReplyStream(
        dialect.decoder("asked", {"x-request-id": "r"}, max_tokens=7),
        streamed=given.streamed,
        tools=tuple(TOOLS[given.tools]) if given.tools else (),
        stops=given.stops,
    )
    events: list[Event] = []
    try:
        if pieces is None:
            reply.decode_body(given.body)
        else:
            for piece in pieces:
                events.extend(reply.feed(piece))
            events.extend(reply.close())
            assert isinstance(events[0], Started)
            assert isinstance(events[-1], Finished)
            assert len([event for event in events if isinstance(event, Started | Finished)]) == 2
    except LlamaVisionError as error:
        check_error(error)
        partial = reply.partial()
        check_reply(partial, whole=False)
        return Outcome(f"{type(error).__name__}: {error}", comparable(partial))
    whole = reply.partial()
    check_reply(whole)
    assert pieces is None or comparable(Reply.from_events(events)) == comparable(whole)
    return Outcome(None, comparable(whole))


def comparable(reply: Reply) -> tuple[Any, ...]:
    """Give a reply without ids, which may be made up, and with NaN, which does not equal itself, as text."""
    calls = [(call.name, call.arguments) for call in reply.tool_calls]
    return reply.text, calls, repr(reply.usage), reply.finish_reason, reply.model, reply.id, reply.request_id


def check_error(error: LlamaVisionError) -> None:
    """An error has a text that can be written anywhere."""
    assert str(error)
    str(error).encode()
    if isinstance(error, StatusError):
        assert error.status_code >= 400
        f"{error.body}{error.request_id}".encode()


def check_reply(reply: Reply, *, whole: bool = True) -> None:
    """What is handed on can be written anywhere, and every call has a name and an id of its own."""
    f"{reply.text}{reply.finish_reason}{reply.model}{reply.id}{reply.request_id}".encode()
    for call in reply.tool_calls:
        assert call.name
        f"{call.id}{call.name}{call.arguments}".encode()
    ids = [call.id for call in reply.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert whole == (reply.finish_reason is not None) or not whole


def check_it_can_be_sent_back(given: FuzzInput) -> None:
    """The reply is a turn of the next request."""
    dialect = DIALECTS[given.dialect]
    reply = ReplyStream(dialect.decoder("asked", {}), streamed=False)
    try:
        answer = reply.decode_body(given.body)
    except LlamaVisionError:
        return
    turns = (
        Message("user", (Text("Hello!"),)),
        Message("assistant", (Text(answer.text), *answer.tool_calls)),
    )
    json.loads(dialect.encode(ChatRequest("asked", turns), stream=True).body)

"""What an emulator can be told to send, byte for byte and second for second."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Wait:
    """Send nothing for a while."""

    seconds: float


class Act(Enum):
    """Steps that end an answer before its end."""

    STALL = auto()
    HANG_UP = auto()


STALL = Act.STALL
"""Send nothing more and keep the connection open, until the client leaves or the emulator is reset."""

HANG_UP = Act.HANG_UP
"""Close the connection, in the middle of the answer."""

Step: TypeAlias = bytes | Wait | Act


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted answer.

    Attributes:
        steps: The body's bytes and what happens between them.
        status: None sends no head either: the steps are all that happens.
        headers: Sent with it.
    """

    steps: tuple[Step, ...]
    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict)


NO_ANSWER = Answer((HANG_UP,), status=None)
"""Close the connection without a word."""


def json_answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Make an answer out of anything JSON can say."""
    return _whole(json.dumps(body).encode(), "application/json", status, headers)


def refusal(status: int, body: object = None, *, retry_after: float | str | None = None) -> Answer:
    """Make an error, in DeepInfra's usual shape unless there is a body."""
    if body is None:
        body = {"error": {"message": f"Scripted {status}", "type": "scripted", "param": None, "code": None}}
    return json_answer(body, status, {} if retry_after is None else {"retry-after": str(retry_after)})


def page(html: str, status: int = 200) -> Answer:
    """Make a web page, such as proxies answer with."""
    return _whole(html.encode(), "text/html; charset=utf-8", status)


def event_stream(*events: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Make a streamed answer.

    Args:
        *events: Bytes, waits and acts are played as they are; anything else becomes an event of its JSON text, and
            the text "[DONE]" the end mark. Nothing is added at the end.
        headers: Beside the content type.
    """
    steps = tuple(event if isinstance(event, bytes | Wait | Act) else sse(event) for event in events)
    return Answer(steps, headers={"content-type": "text/event-stream", **(headers or {})})


def sse(event: object) -> bytes:
    """Write one server-sent event, with the spaces that DeepInfra's JSON has."""
    payload = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {payload}\n\n".encode()


def _whole(body: bytes, content_type: str, status: int, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        (body,), status, {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
    )


def error_body(message: str, **more: Any) -> dict[str, Any]:
    """Write an error as most hosts do."""
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
    }

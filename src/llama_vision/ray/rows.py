"""One row of a batch: its request, retries of structured output, and its result as cells."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from llama_vision.core.backend import Backend
from llama_vision.core.errors import LlamaVisionError, MalformedReplyError
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.structured.method import StructuredOutputPlan
from llama_vision.structured.session import StructuredOutputSession

COLUMN_TYPES: dict[str, type] = {
    "text": str,
    "json": str,
    "finish_reason": str,
    "input_tokens": int,
    "output_tokens": int,
    "cost_usd": float,
    "cost_is_estimate": bool,
    "seconds": float,
    "error_type": str,
    "error": str,
}
"""The columns that are added, `json` only with a schema, and their types. Any cell may be empty."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """The result of a row.

    Attributes:
        reply: The last reply, with the usage of all of the row's requests; partial if the last one failed.
        json: The validated JSON, if there is a schema.
        seconds: Wall time, including the wait for other rows on the same model.
        error: What went wrong, or None.
    """

    reply: Reply | None = None
    json: str | None = None
    seconds: float = 0.0
    error: Exception | None = None

    def cells(self) -> dict[str, Any]:
        """Return a cell for each column of `COLUMN_TYPES`; None if it is empty."""
        reply, succeeded = self.reply or Reply(), self.error is None
        usage = reply.usage
        return {
            "text": _escape_surrogates(reply.text) if succeeded or reply.text else None,
            "json": None if self.json is None else _escape_surrogates(self.json),
            "finish_reason": reply.finish_reason,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": usage.cost_usd,
            "cost_is_estimate": None if usage.cost_usd is None else usage.cost_is_estimate,
            "seconds": round(self.seconds, 6),
            "error_type": None if succeeded else type(self.error).__name__,
            "error": None if succeeded else _escape_surrogates(str(self.error)),
        }


def ask_row(
    backend: Backend, make: Callable[[], ChatRequest], plan: StructuredOutputPlan | None
) -> RowResult:
    """Ask about one row, with structured output if there is a plan; the result holds any error, also one of `make`."""
    start = time.monotonic()
    replies: list[Reply] = []
    output, failure = None, None
    try:
        request = make()
        if plan is None:
            replies.append(backend.complete(request))
        else:
            output = _ask_until_valid(backend, request, StructuredOutputSession(plan), replies)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other rows can do nothing for it
        failure = error
        if isinstance(error, LlamaVisionError) and error.partial is not None:
            replies.append(error.partial)
    return RowResult(_total(replies), output, time.monotonic() - start, failure)


def _ask_until_valid(
    backend: Backend, request: ChatRequest, session: StructuredOutputSession, replies: list[Reply]
) -> str:
    """Send a request until its reply is valid, and collect all replies."""
    while not session.done:
        replies.append(
            backend.complete(replace(request, messages=(*request.messages, *session.retry_messages)))
        )
        session.add_reply(replies[-1])
    if session.error is not None:
        raise MalformedReplyError(session.error) from session.cause
    return json.dumps(session.json, ensure_ascii=False)


def _total(replies: list[Reply]) -> Reply | None:
    """Return the last reply with the usage of all."""
    return replace(replies[-1], usage=sum((reply.usage for reply in replies), Usage())) if replies else None


def _escape_surrogates(text: str) -> str:
    """Escape lone surrogates, such as an undecodable file name holds: a text column takes none."""
    return text.encode(errors="backslashreplace").decode()

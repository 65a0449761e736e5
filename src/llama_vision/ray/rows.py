"""One row answered: asked, asked again where the answer does not fit, and what became of it as cells."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from llama_vision.core.backend import Backend
from llama_vision.core.errors import LlamaVisionError, MalformedReplyError
from llama_vision.core.messages import Message, Text
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.ray.form import OutputSchema, output_text
from llama_vision.structured.extract import MAX_OUTPUT_RETRIES, retry_message

_SHOWN = 200  # characters of an answer in an error's text

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
"""The columns that are added, `json` only where a schema is given, and of what they are. Any cell may be empty."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of a row.

    Attributes:
        reply: What the model said, with the usage of all that was asked for it; of a failure what had arrived.
        json: The JSON in it, where a schema is given.
        seconds: How long it took, with the time it waited for others on the same model.
        error: What went wrong; None where nothing did.

    """

    reply: Reply | None = None
    json: str | None = None
    seconds: float = 0.0
    error: Exception | None = None

    def cells(self) -> dict[str, Any]:
        """Give a cell for each column of `COLUMN_TYPES`; None where there is nothing to say."""
        reply = self.reply or Reply()
        usage, told = reply.usage, self.error is None
        return {
            "text": _escape_surrogates(reply.text) if told or reply.text else None,
            "json": None if self.json is None else _escape_surrogates(self.json),
            "finish_reason": reply.finish_reason,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": usage.cost_usd,
            "cost_is_estimate": None if usage.cost_usd is None else usage.cost_is_estimate,
            "seconds": round(self.seconds, 6),
            "error_type": None if told else type(self.error).__name__,
            "error": None if told else _escape_surrogates(str(self.error)),
        }


def ask_row(backend: Backend, make: Callable[[], ChatRequest], form: OutputSchema | None) -> RowResult:
    """Ask, and keep whatever comes of it.

    Args:
        backend: Who is asked.
        make: Makes the request; what it raises is kept too.
        form: What the answer shall be, checked and asked for again; None takes any.

    Returns:
        What became of it.

    """
    began = time.monotonic()
    replies: list[Reply] = []
    found, failure = None, None
    try:
        request = make()
        if form is None:
            replies.append(backend.complete(request))
        else:
            found = _ask_until_valid(backend, form.apply_to(request), form, replies)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other rows can do nothing for it
        failure = error
        if isinstance(error, LlamaVisionError) and error.partial is not None:
            replies.append(error.partial)
    return RowResult(_last(replies), found, time.monotonic() - began, failure)


def _ask_until_valid(backend: Backend, request: ChatRequest, form: OutputSchema, heard: list[Reply]) -> str:
    """Ask until an answer fits, and note all of them in `replies`."""
    while True:
        reply = backend.complete(request)
        heard.append(reply)
        try:
            return form.read(reply)
        except ValueError as error:
            problem = str(error)
        cut = reply.finish_reason == "length"
        if cut or len(heard) > MAX_OUTPUT_RETRIES:
            raise _misfit(problem, reply, len(heard), cut=cut)
        spoken = (Message("assistant", (Text(output_text(reply)),)),) if output_text(reply).strip() else ()
        again = Message("user", (Text(retry_message(problem)),))
        request = replace(request, messages=(*request.messages, *spoken, again))


def _misfit(problem: str, reply: Reply, times: int, *, cut: bool) -> MalformedReplyError:
    words = output_text(reply)
    shown = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
    if cut:
        return MalformedReplyError(
            f"The answer was cut off before its JSON was whole: raise max_tokens. It was: {shown!r}"
        )
    tries = "" if times == 1 else f", asked {times} times"
    return MalformedReplyError(f"The answer does not fit the schema{tries}: {problem} It was: {shown!r}")


def _last(heard: list[Reply]) -> Reply | None:
    """Give the last reply with what all of them took."""
    return replace(heard[-1], usage=sum((reply.usage for reply in heard), Usage())) if heard else None


def _escape_surrogates(text: str) -> str:
    """Write half a character, such as a strange file name holds, with a backslash: a column of text takes none."""
    return text.encode(errors="backslashreplace").decode()

"""What Cloudflare's native replies look like, put into the shape of a chat completion.

A whole reply comes in an envelope, `{"result": {...}, "success": true}`, a stream's chunk without one. `response` may be
a string, a number, an object that was JSON text, or null beside tool calls; `result` may even be a chat completion.
"""

import json
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from llama_vision.core.errors import MalformedReplyError
from llama_vision.core.json_types import as_mapping
from llama_vision.dialects.chat_completions.wire import (
    WireChoice,
    WireCompletion,
    WireFunction,
    WireMessage,
    WireToolCall,
    WireUsage,
)
from llama_vision.dialects.error_bodies import error_in_body


class WireNative(BaseModel):
    """A native reply without its envelope, or a chunk of a stream."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    response: Any = None
    tool_calls: list[Any] | None = None
    usage: WireUsage | None = None
    choices: list[WireChoice] | None = None
    id: str | None = None
    model: str | None = None
    error: Any = None


class WireEnvelope(WireNative):
    """A payload: an envelope where `result` is set, else a chunk."""

    result: WireNative | None = None
    success: bool | None = None


def parse_native(payload: bytes) -> WireCompletion:
    """Parse a payload.

    Args:
        payload: JSON text.

    Returns:
        What it says, as a chat completion would say it.

    Raises:
        MalformedReplyError: It can't be read.
        StatusError: It tells of a failure, with or without an error status.

    """
    try:
        envelope = WireEnvelope.model_validate_json(payload)
        completion = _as_completion(envelope)
    except ValidationError as error:
        if failure := error_in_body(payload):
            raise failure from error
        shown = payload[:200].decode(errors="replace")
        raise MalformedReplyError(f"Cloudflare sent something that can't be read: {shown!r}") from error
    answers = envelope.success is not False and (completion.choices or completion.usage is not None)
    if (envelope.error is not None or not answers) and (failure := error_in_body(payload)):
        raise failure
    return completion


def _as_completion(envelope: WireEnvelope) -> WireCompletion:
    whole = envelope.result is not None
    native = envelope.result or envelope
    choices = native.choices if native.choices is not None else _choices(native, whole=whole)
    return WireCompletion(id=native.id, model=native.model, choices=choices, usage=native.usage)


def _choices(native: WireNative, *, whole: bool) -> list[WireChoice]:
    said = native.model_fields_set & {"response", "tool_calls"}
    if not said and not whole:  # a chunk of usage alone
        return []
    message = WireMessage(content=_text(native.response), tool_calls=_calls(native.tool_calls))
    return [WireChoice(message=message) if whole else WireChoice(delta=message)]


def _text(response: object) -> str | None:
    if response is None or isinstance(response, str):
        return response
    return json.dumps(response, ensure_ascii=False)


def _calls(calls: list[Any] | None) -> list[WireToolCall] | None:
    """Read calls: `{"name", "arguments"}`, or as in a chat completion."""
    return [_call(as_mapping(call)) for call in calls] if calls else None


def _call(call: Any) -> WireToolCall:
    nested = as_mapping(call.get("function"))
    function = nested or call
    index: Any = call.get("index")
    return WireToolCall(
        index=index if isinstance(index, int) else None,
        id=cast("str | None", call.get("id")),
        function=WireFunction(name=function.get("name"), arguments=function.get("arguments")),
    )

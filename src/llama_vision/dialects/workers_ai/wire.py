"""Wire types of Cloudflare's native replies, and how they become those of chat completions.

A whole reply comes in an envelope, `{"result": {...}, "success": true}`, a stream's chunk without one. `response` may be
a string, a number, an object that was JSON text, or null beside tool calls; `result` may even be a chat completion.
"""

import json
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from llama_vision.core.json_types import as_mapping
from llama_vision.dialects.chat_completions.wire import (
    WireChoice,
    WireCompletion,
    WireFunction,
    WireMessage,
    WireToolCall,
    WireUsage,
)


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
    """Parse a payload into the shape of a chat completion; an empty one where Cloudflare reports an error.

    Raises:
        pydantic.ValidationError: It can't be read.

    """
    envelope = WireEnvelope.model_validate_json(payload)
    if envelope.success is False:
        return WireCompletion()
    whole = envelope.result is not None
    native = envelope.result or envelope
    choices = native.choices if native.choices is not None else _choices(native, whole=whole)
    return WireCompletion(
        id=native.id, model=native.model, choices=choices, usage=native.usage, error=envelope.error
    )


def _choices(native: WireNative, *, whole: bool) -> list[WireChoice]:
    if not whole and not native.model_fields_set & {"response", "tool_calls"}:  # a chunk of usage alone
        return []
    message = WireMessage(content=_text(native.response), tool_calls=_calls(native.tool_calls))
    return [WireChoice(message=message) if whole else WireChoice(delta=message)]


def _text(response: object) -> str | None:
    if response is None or isinstance(response, str):
        return response
    return json.dumps(response, ensure_ascii=False)


def _calls(calls: list[Any] | None) -> list[WireToolCall] | None:
    """Convert calls, which are `{"name", "arguments"}`, or as in a chat completion."""
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

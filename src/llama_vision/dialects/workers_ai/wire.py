"""Wire types of Cloudflare's native replies, and how they become those of chat completions.

A whole reply comes in an envelope, `{"result": {...}, "success": true}`, a stream's chunk without one. `response` may be
a string, a number, an object that was JSON text, or null beside tool calls; `result` may even be a chat completion.
"""

import json
from typing import Annotated, Any

from llama_vision.core.json_types import as_mapping
from llama_vision.dialects.chat_completions.wire import (
    CALLS_LIMIT,
    WireChoice,
    WireCompletion,
    WireFunction,
    WireMessage,
    WireToolCall,
    parse_wire,
)


class WireNativeToolCall(WireToolCall):
    """A tool call, `{"name", "arguments"}` or as in a chat completion."""

    name: str | None = None
    arguments: Any = None


class WireNative(WireCompletion):
    """A native reply without its envelope, or a chunk of a stream."""

    response: Any = None
    tool_calls: Annotated[list[Any], CALLS_LIMIT] | None = None


class WireEnvelope(WireNative):
    """A payload: an envelope where `result` is set, else a chunk."""

    result: WireNative | None = None
    success: bool | None = None


def parse_native(payload: bytes) -> WireCompletion:
    """Parse a payload into the shape of a chat completion; an empty one where Cloudflare reports an error.

    Raises:
        pydantic.ValidationError: It can't be read.
    """
    envelope = parse_wire(WireEnvelope, payload)
    if envelope.success is False:
        return WireCompletion()
    native = envelope.result or envelope
    native.error = envelope.error
    if native.choices is None:
        native.choices = _choices(native, whole=envelope.result is not None)
    return native


def _choices(native: WireNative, *, whole: bool) -> list[WireChoice]:
    if not whole and not native.model_fields_set & {"response", "tool_calls"}:  # a chunk of usage alone
        return []
    content = native.response
    if not isinstance(content, str | None):
        content = json.dumps(content, ensure_ascii=False)
    calls: list[WireToolCall] = []
    for entry in native.tool_calls or ():
        # What is no object is a call without a name, which is refused.
        call = WireNativeToolCall.model_validate(as_mapping(entry) or {"arguments": entry or None})
        if call.function is None or not call.function.model_fields_set:
            call.function = WireFunction(name=call.name, arguments=call.arguments)
        calls.append(call)
    message = WireMessage(content=content, tool_calls=calls)
    return [WireChoice(message=message) if whole else WireChoice(delta=message)]

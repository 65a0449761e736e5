"""Wire types of chat completions: permissive mirrors of the providers' JSON, parsed in one pass.

Unknown fields are ignored and every field may be missing or null, because each is at some provider. Chunks of a stream
and whole bodies share one type: a choice has a `delta` or a `message`.
"""

import json
import re
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from llama_vision.core.json_types import is_too_deep

MAX_TOOL_CALLS = 100_000
"""In one reply. A kB is taken for each, which the provider may write in 15 bytes."""

CALLS_LIMIT = Field(max_length=MAX_TOOL_CALLS, fail_fast=True)

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class _Wire(BaseModel):
    """Numbers are accepted where strings are expected."""

    # Built with the first reply, and not by the import: it takes 10 ms.
    model_config = ConfigDict(coerce_numbers_to_str=True, defer_build=True)


_Parsed = TypeVar("_Parsed", bound=_Wire)


def parse_wire(kind: type[_Parsed], payload: bytes) -> _Parsed:
    """Parse a payload, also where a string holds half a surrogate pair, which pydantic's JSON parser refuses.

    Raises:
        pydantic.ValidationError: It can't be read.
    """
    try:
        return kind.model_validate_json(payload)
    except ValidationError:
        if not _HALF.search(payload) or is_too_deep(payload):
            raise
        try:
            value: object = json.loads(payload)
        except (ValueError, RecursionError):
            value = None
        if value is None:
            raise
        return kind.model_validate(value)


class WireFunction(_Wire):
    """The function of a tool call; `arguments` is a string, or at some providers the object itself."""

    name: str | None = None
    arguments: Any = None


class WireToolCall(_Wire):
    """A tool call, or a fragment of one."""

    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None


class WireMessage(_Wire):
    """A message, or the delta of one."""

    content: str | StrictBool | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Annotated[list[WireToolCall], CALLS_LIMIT] | None = None
    function_call: WireFunction | None = None


_EmptyArray: TypeAlias = Annotated[list[Any], Field(max_length=0)]


class WireChoice(_Wire):
    """One of the choices; a gateway in PHP writes an empty object as `[]`."""

    index: int | None = None
    delta: WireMessage | _EmptyArray | None = None
    message: WireMessage | _EmptyArray | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    error: Any = None


class WireUsage(_Wire):
    """Token counts, floats at some providers. Other fields are kept: some hold the cost (see `UsageFormat`)."""

    model_config = ConfigDict(extra="allow")

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None


class WireCompletion(_Wire):
    """A whole body, or one chunk of a stream."""

    id: str | None = None
    model: str | None = None
    choices: Annotated[list[WireChoice], Field(max_length=1000, fail_fast=True)] | None = None
    usage: WireUsage | None = None
    service_tier: Any = None
    system_fingerprint: Any = None
    error: Any = None


class WireCompletionWithExtras(WireCompletion):
    """The same with all other fields kept, for providers that report usage in one of their own."""

    model_config = ConfigDict(extra="allow")

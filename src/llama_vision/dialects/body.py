"""Fields that all dialects write alike."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.request import ChatRequest, SamplingParams

_RESERVED_FIELDS = frozenset(
    {"model", "messages", "image", "stream", "tools", "tool_choice", "max_tokens", "stop"}
)

_SAMPLING_FIELDS = tuple(field.name for field in fields(SamplingParams))
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode_json(body: dict[str, Any]) -> bytes:
    """Encode a body, or raise `UnsupportedInputError` where a value has no JSON."""
    try:
        return _ENCODER.encode(body).encode()
    # NaN, half a surrogate pair, or an object in extra_body or a schema.
    except (TypeError, ValueError) as error:
        raise UnsupportedInputError(f"The request can't be written as JSON: {error}.") from error


def sampling_fields(request: ChatRequest) -> dict[str, Any]:
    """Name the sampling parameters that are set, and the stop strings."""
    named = {name: getattr(request.sampling, name) for name in _SAMPLING_FIELDS}
    named["stop"] = list(request.stop) or None
    return {name: value for name, value in named.items() if value is not None}


def validate_extra_body(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Pass the user's own fields through, except those that would break the decoding of the reply."""
    if reserved := sorted(_RESERVED_FIELDS.intersection(extra)):
        raise UnsupportedInputError(
            f"extra_body may not hold {', '.join(reserved)}: use the parameter or the method of that name."
        )
    if extra.get("n", 1) not in (1, None):
        raise UnsupportedInputError(
            "extra_body asks for n > 1, but one reply is read: use batch() for several."
        )
    return extra

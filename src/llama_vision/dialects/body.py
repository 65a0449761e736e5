"""What the bodies of all dialects have in common."""

import json
from collections.abc import Mapping
from typing import Any

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.request import ChatRequest

_RESERVED_FIELDS = frozenset(
    {"model", "messages", "image", "stream", "tools", "tool_choice", "max_tokens", "stop"}
)

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode_json(body: dict[str, Any]) -> bytes:
    """Write a body.

    Raises:
        UnsupportedInputError: Something in it has no JSON.

    """
    try:
        return _ENCODER.encode(body).encode()
    # NaN, half a surrogate pair, or an object in extra_body or a schema.
    except (TypeError, ValueError) as error:
        raise UnsupportedInputError(f"The request can't be written as JSON: {error}.") from error


def sampling_fields(request: ChatRequest) -> dict[str, Any]:
    """Name what of the sampling is set, as all dialects do."""
    sampling = request.sampling
    named = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "stop": list(request.stop) or None,
    }
    return {name: value for name, value in named.items() if value is not None}


def validate_extra_body(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let the user's own fields through, except those that would break what is read back."""
    if taken := sorted(_RESERVED_FIELDS.intersection(extra)):
        raise UnsupportedInputError(
            f"extra_body may not hold {', '.join(taken)}: use the parameter or the method of that name."
        )
    if extra.get("n", 1) not in (1, None):
        raise UnsupportedInputError(
            "extra_body asks for n > 1, but one reply is read: use batch() for several."
        )
    return extra

"""Access to JSON of unknown shape."""

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, cast

_MAX_DEPTH = 500
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return the value itself where it is a JSON object, else an empty one: a `get` then finds nothing."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def is_too_deep(body: bytes) -> bool:
    """Tell whether JSON is nested more than 500 levels deep.

    How deep Python's parser can go depends on how deep its caller is: the same body would be read here, and not there.

    Args:
        body: The text in UTF-8; it may be damaged.

    Returns:
        Whether it is not to be parsed.
    """
    if body.count(b"{") + body.count(b"[") <= _MAX_DEPTH:
        return False
    steps = _STRING_OR_BRACKET.findall(body)
    depths = accumulate(1 if step in b"{[" else -1 if step in b"}]" else 0 for step in steps)
    return max(depths, default=0) > _MAX_DEPTH

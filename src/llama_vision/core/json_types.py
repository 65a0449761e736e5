"""Access to JSON of unknown shape."""

from collections.abc import Mapping
from typing import Any, cast


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return the value itself where it is a JSON object, else an empty one: a `get` then finds nothing."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}

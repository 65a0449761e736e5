"""Looking into someone else's JSON, of which nothing is known."""

from collections.abc import Mapping
from typing import Any, cast


def as_mapping(value: object) -> Mapping[str, Any]:
    """Take a value for a JSON object.

    Args:
        value: Anything.

    Returns:
        The value itself where it is an object, else an empty one: a `get` then finds nothing.

    """
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}

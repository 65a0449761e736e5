"""Says where a value does not fit a JSON schema, in words that a model can act on.

It knows what schemas made from types are made of, and takes everything else (formats, patterns, ranges) for granted.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from llama_vision.core.json_types import as_mapping

_KINDS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    ),
}


def first_violation(value: object, schema: Mapping[str, Any]) -> str:
    """Find the first place where a value does not fit.

    Args:
        value: Parsed JSON.
        schema: What it should be; references point into the schema itself.

    Returns:
        The place and what is wrong there, such as `days: should be integer, not "two"`; empty where all fits.

    """
    return _Validator(schema).misfit(value, schema, "")


class _Validator:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def misfit(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        """Check one place and all below it."""
        if not schema:
            return ""
        if "$ref" in schema:
            return self.misfit(value, self._resolved(str(schema["$ref"])), path)
        return (
            _check_type_and_enum(value, schema, path)
            or self._check_combinators(value, schema, path)
            or self._check_object(value, schema, path)
            or self._check_array(value, schema, path)
        )

    def _check_combinators(self, value: object, schema: Mapping[str, Any], place: str) -> str:
        for part in cast("Sequence[Mapping[str, Any]]", schema.get("allOf", ())):
            if found := self.misfit(value, part, place):
                return found
        choices = cast("Sequence[Mapping[str, Any]]", schema.get("anyOf") or schema.get("oneOf") or ())
        found = [self.misfit(value, choice, place) for choice in choices]
        return " or ".join(dict.fromkeys(found)) if found and all(found) else ""

    def _check_object(self, value: object, schema: Mapping[str, Any], place: str) -> str:
        if not isinstance(value, dict):
            return ""
        given = cast("dict[str, object]", value)
        for name in cast("Sequence[str]", schema.get("required", ())):
            if name not in given:
                return f"{_join_path(place, name)}: is missing"
        properties = as_mapping(schema.get("properties"))
        for name, inner in given.items():
            if name in properties:
                if found := self.misfit(inner, as_mapping(properties[name]), _join_path(place, name)):
                    return found
            elif schema.get("additionalProperties") is False:
                return f"{_join_path(place, name)}: should not be there"
        return ""

    def _check_array(self, value: object, schema: Mapping[str, Any], place: str) -> str:
        if not isinstance(value, list):
            return ""
        items = as_mapping(schema.get("items"))
        for number, inner in enumerate(cast("list[object]", value)):
            if found := self.misfit(inner, items, _join_path(place, str(number))):
                return found
        return ""

    def _resolved(self, reference: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            found = as_mapping(found.get(step)) if step else found
        return found if found is not self._root or reference == "#" else {}


def _check_type_and_enum(value: object, schema: Mapping[str, Any], place: str) -> str:
    shown = json.dumps(value, ensure_ascii=False)[:80]
    allowed = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if allowed and value not in allowed:
        return f"{place or 'the answer'}: should be one of {json.dumps(allowed, ensure_ascii=False)}, not {shown}"
    kind: object = schema.get("type")
    kinds = cast("list[object]", kind) if isinstance(kind, list) else [kind]
    if any(not isinstance(one, str) or one not in _KINDS or _KINDS[one](value) for one in kinds):
        return ""
    return f"{place or 'the answer'}: should be {' or '.join(map(str, kinds))}, not {shown}"


def _join_path(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name

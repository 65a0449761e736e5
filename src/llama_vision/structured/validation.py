"""Validation against a JSON schema, with error messages that a model can act on.

It covers what schemas generated from types consist of; formats, patterns and ranges are not checked.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from llama_vision.core.json_types import as_mapping

_MAX_ERRORS = 10

_TYPES: dict[str, Callable[[Any], bool]] = {
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
    """Return the path of the first violation and what is wrong, as in `days: should be integer, not "two"`; empty if valid."""
    return _Validator(schema).violation(value, schema, "")


def format_validation_error(error: ValueError) -> str:
    """Format a `ValidationError` of pydantic 1 or 2, one line for each of its first ten errors."""
    errors: list[Mapping[str, Any]] = cast("Any", error).errors()[:_MAX_ERRORS]
    return "\n".join(f"{'.'.join(map(str, one['loc'])) or 'the answer'}: {one['msg']}" for one in errors)


class _Validator:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def violation(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        """Return the first violation in a value or below it."""
        if not schema:
            return ""
        if "$ref" in schema:
            return self.violation(value, self._resolve(str(schema["$ref"])), path)
        return (
            _check_type_and_enum(value, schema, path)
            or self._check_combinators(value, schema, path)
            or self._check_object(value, schema, path)
            or self._check_array(value, schema, path)
        )

    def _check_combinators(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        for subschema in cast("Sequence[Mapping[str, Any]]", schema.get("allOf", ())):
            if violation := self.violation(value, subschema, path):
                return violation
        options = cast("Sequence[Mapping[str, Any]]", schema.get("anyOf") or schema.get("oneOf") or ())
        violations = [self.violation(value, option, path) for option in options]
        return " or ".join(dict.fromkeys(violations)) if all(violations) else ""

    def _check_object(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        if not isinstance(value, dict):
            return ""
        fields = cast("dict[str, object]", value)
        for name in cast("Sequence[str]", schema.get("required", ())):
            if name not in fields:
                return f"{_join_path(path, name)}: is missing"
        properties = as_mapping(schema.get("properties"))
        for name, inner in fields.items():
            if name in properties:
                if violation := self.violation(inner, as_mapping(properties[name]), _join_path(path, name)):
                    return violation
            elif schema.get("additionalProperties") is False:
                return f"{_join_path(path, name)}: should not be there"
        return ""

    def _check_array(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        if not isinstance(value, list):
            return ""
        items = as_mapping(schema.get("items"))
        for number, inner in enumerate(cast("list[object]", value)):
            if violation := self.violation(inner, items, _join_path(path, str(number))):
                return violation
        return ""

    def _resolve(self, reference: str) -> Mapping[str, Any]:
        schema: Mapping[str, Any] = self._root
        for key in reference.removeprefix("#").strip("/").split("/"):
            schema = as_mapping(schema.get(key)) if key else schema
        return schema if schema is not self._root or reference == "#" else {}


def _check_type_and_enum(value: object, schema: Mapping[str, Any], path: str) -> str:
    quoted = json.dumps(value, ensure_ascii=False)[:80]
    allowed = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if allowed and value not in allowed:
        return f"{path or 'the answer'}: should be one of {json.dumps(allowed, ensure_ascii=False)}, not {quoted}"
    spec: object = schema.get("type")
    types = cast("list[object]", spec) if isinstance(spec, list) else [spec]
    if any(not isinstance(one, str) or one not in _TYPES or _TYPES[one](value) for one in types):
        return ""
    return f"{path or 'the answer'}: should be {' or '.join(map(str, types))}, not {quoted}"


def _join_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

"""Validation against a JSON schema, with error messages that a model can act on.

Formats are annotations, as in JSON Schema 2020-12; `unevaluatedProperties`, `unevaluatedItems` and dynamic references are not
checked. A keyword with a value of the wrong type is ignored, since schemas for models are written freely.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence, Sized
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple, cast

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


class _Limit(NamedTuple):
    """A keyword that compares values of one type with its own value, of `limit_type`."""

    value_type: str
    limit_type: str
    is_met: Callable[[Any, Any], bool]
    text: str


def _is_multiple(value: float, divisor: float) -> bool:
    """Whether a number is a multiple, as it is written: 0.3 is one of 0.1."""
    return divisor <= 0 or Fraction(str(value)) % Fraction(str(divisor)) == 0


def _matches(value: str, pattern: str) -> bool:
    with suppress(re.error):
        return re.search(pattern, value) is not None
    return True  # another dialect's, such as ECMA 262's


def _is_long_enough(value: Sized, limit: float) -> bool:
    return len(value) >= limit


def _is_short_enough(value: Sized, limit: float) -> bool:
    return len(value) <= limit


def _is_unique(value: Sequence[object], required: bool) -> bool:
    return not required or len({json.dumps(item, sort_keys=True) for item in value}) == len(value)


_LIMITS = {
    "minimum": _Limit("number", "number", operator.ge, "be at least {}"),
    "maximum": _Limit("number", "number", operator.le, "be at most {}"),
    "exclusiveMinimum": _Limit("number", "number", operator.gt, "be more than {}"),
    "exclusiveMaximum": _Limit("number", "number", operator.lt, "be less than {}"),
    "multipleOf": _Limit("number", "number", _is_multiple, "be a multiple of {}"),
    "minLength": _Limit("string", "integer", _is_long_enough, "have at least {} characters"),
    "maxLength": _Limit("string", "integer", _is_short_enough, "have at most {} characters"),
    "pattern": _Limit("string", "string", _matches, "match {}"),
    "minItems": _Limit("array", "integer", _is_long_enough, "have at least {} items"),
    "maxItems": _Limit("array", "integer", _is_short_enough, "have at most {} items"),
    "uniqueItems": _Limit("array", "boolean", _is_unique, "have no item twice"),
    "minProperties": _Limit("object", "integer", _is_long_enough, "have at least {} properties"),
    "maxProperties": _Limit("object", "integer", _is_short_enough, "have at most {} properties"),
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

    def violation(self, value: object, schema: object, path: str) -> str:
        """Return the first violation in a value or below it."""
        if schema is False:
            return f"{path or 'the answer'}: should not be there"
        rules = as_mapping(schema)
        if not rules:
            return ""
        if "$ref" in rules and (violation := self.violation(value, self._resolve(str(rules["$ref"])), path)):
            return violation
        return (
            _check_type_and_enum(value, rules, path)
            or _check_limits(value, rules, path)
            or self._check_combinators(value, rules, path)
            or self._check_conditions(value, rules, path)
            or self._check_object(value, rules, path)
            or self._check_array(value, rules, path)
        )

    def _check_combinators(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        for subschema in _items(schema, "allOf"):
            if violation := self.violation(value, subschema, path):
                return violation
        for keyword in ("anyOf", "oneOf"):
            options = _items(schema, keyword)
            violations = [self.violation(value, option, path) for option in options]
            if options and all(violations):
                return " or ".join(dict.fromkeys(violations))
            if keyword == "oneOf" and violations.count("") > 1:
                return _should("fit only one choice of oneOf", value, path)
        return ""

    def _check_conditions(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        if "not" in schema and not self.violation(value, schema["not"], path):
            return _should(f"not fit {_quote(schema['not'])}", value, path)
        if "if" not in schema:
            return ""
        branch = "else" if self.violation(value, schema["if"], path) else "then"
        return self.violation(value, schema.get(branch), path)

    def _check_object(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        if not isinstance(value, dict):
            return ""
        fields = cast("dict[str, object]", value)
        dependent = as_mapping(schema.get("dependentRequired"))
        required = [*_items(schema, "required"), *(one for name in fields for one in _items(dependent, name))]
        for name in required:
            if name not in fields:
                return f"{_join_path(path, name)}: is missing"
        for name, subschema in as_mapping(schema.get("dependentSchemas")).items():
            if name in fields and (violation := self.violation(fields, subschema, path)):
                return violation
        for name, inner in fields.items():
            inner_path = _join_path(path, name)
            if self.violation(name, schema.get("propertyNames"), inner_path):
                return f"{inner_path}: its name should fit {_quote(schema['propertyNames'])}"
            for subschema in _property_schemas(name, schema):
                if violation := self.violation(inner, subschema, inner_path):
                    return violation
        return ""

    def _check_array(self, value: object, schema: Mapping[str, Any], path: str) -> str:
        if not isinstance(value, list):
            return ""
        items = cast("list[object]", value)
        first = _items(schema, "prefixItems")
        for number, inner in enumerate(items):
            subschema = first[number] if number < len(first) else schema.get("items")
            if violation := self.violation(inner, subschema, _join_path(path, str(number))):
                return violation
        if "contains" not in schema:
            return ""
        found = [self.violation(inner, schema["contains"], path) for inner in items].count("")
        least, most = schema.get("minContains", 1), schema.get("maxContains", len(items))
        if least <= found <= most:
            return ""
        limits = f"{least} to {most}" if "maxContains" in schema else f"at least {least}"
        return _should(f"contain {limits} items that fit {_quote(schema['contains'])}", items, path)

    def _resolve(self, reference: str) -> Mapping[str, Any]:
        schema: Mapping[str, Any] = self._root
        for key in reference.removeprefix("#").strip("/").split("/"):
            schema = as_mapping(schema.get(key)) if key else schema
        return schema if schema is not self._root or reference == "#" else {}


def _property_schemas(name: str, schema: Mapping[str, Any]) -> list[object]:
    """Collect the schemas of a property: its own and its patterns', or `additionalProperties`."""
    properties = as_mapping(schema.get("properties"))
    found = [properties[name]] if name in properties else []
    patterns = as_mapping(schema.get("patternProperties"))
    found += [subschema for pattern, subschema in patterns.items() if _matches(name, pattern)]
    return found or [schema.get("additionalProperties")]


def _check_type_and_enum(value: object, schema: Mapping[str, Any], path: str) -> str:
    allowed = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if allowed and value not in allowed:
        return _should(f"be one of {json.dumps(allowed, ensure_ascii=False)}", value, path)
    spec: object = schema.get("type")
    types = cast("list[object]", spec) if isinstance(spec, list) else [spec]
    if any(not isinstance(one, str) or one not in _TYPES or _TYPES[one](value) for one in types):
        return ""
    return _should(f"be {' or '.join(map(str, types))}", value, path)


def _check_limits(value: object, schema: Mapping[str, Any], path: str) -> str:
    for keyword, limit in _LIMITS.items():
        if keyword not in schema or not _TYPES[limit.limit_type](schema[keyword]):
            continue
        if _TYPES[limit.value_type](value) and not limit.is_met(value, schema[keyword]):
            return _should(limit.text.format(schema[keyword]), value, path)
    return ""


def _items(schema: Mapping[str, Any], key: str) -> Sequence[Any]:
    items = schema.get(key)
    return cast("list[Any]", items) if isinstance(items, list) else ()


def _should(demand: str, value: object, path: str) -> str:
    return f"{path or 'the answer'}: should {demand}, not {_quote(value)}"


def _quote(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]


def _join_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

"""Schema relaxation: what llguidance can't enforce is left out of a schema, for callers that validate the reply.

Every instance of the schema is one of the relaxed schema, but for some formats, of which only the usual spelling is left.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from llama_vision.backends.local.schema_narrowing import (
    SCHEMA_LIST_KEYWORDS,
    SCHEMA_MAP_KEYWORDS,
    SUBSCHEMA_KEYWORDS,
    Schema,
    narrow_schema,
    resolve_ref,
)

# "Unimplemented keys" of llguidance 1.9 that `structured.validation` checks.
_UNENFORCED_KEYWORDS = frozenset(
    {"uniqueItems", "contains", "minContains", "maxContains", "not", "if", "then", "else"}
    | {"dependentRequired", "dependentSchemas", "propertyNames"}
)

_KEY_KEYWORDS = frozenset({"patternProperties", "additionalProperties"})

# In the order in which they are given up last: a pattern says more than a length.
_SCALAR_KEYWORDS = (
    *("format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("maxLength", "minLength"),
)

_UUID = "^[0-9a-f]{{8}}-[0-9a-f]{{4}}-{}[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}$"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_IPV6 = "(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}|:)"  # with `::` before its last part
_IPV4_PREFIX, _IPV6_PREFIX = "(?:/(?:3[0-2]|[12]?[0-9]))?", "(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"

_FORMAT_PATTERNS = {
    "uuid": _UUID.format("[0-9a-f]"),
    **{f"uuid{version}": _UUID.format(version) for version in range(1, 9)},
    "ipv4network": f"^{_IPV4}{_IPV4_PREFIX}$",
    "ipv4interface": f"^{_IPV4}{_IPV4_PREFIX}$",
    "ipv6network": f"^{_IPV6}{_IPV6_PREFIX}$",
    "ipv6interface": f"^{_IPV6}{_IPV6_PREFIX}$",
    "ipvanyaddress": f"^(?:{_IPV4}|{_IPV6})$",
    "ipvanynetwork": f"^(?:{_IPV4}{_IPV4_PREFIX}|{_IPV6}{_IPV6_PREFIX})$",
    "ipvanyinterface": f"^(?:{_IPV4}{_IPV4_PREFIX}|{_IPV6}{_IPV6_PREFIX})$",
    "base64": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "base64url": "^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$",
    "multi-host-uri": r"^[a-z][a-z0-9+.-]*://[^\s/]+(?:/\S*)?$",
}
"""Of pydantic's formats that llguidance does not know. Others, such as `path` and `password`, are any string."""


def relax_schema(schema: Mapping[str, Any]) -> Schema:
    """Leave out what llguidance can't enforce and `structured.validation` or pydantic can check."""
    return _SchemaRelaxer(schema).schema(schema)


def schema_error(schema: Schema) -> str | None:
    """Return why llguidance can't compile a schema; None if it can."""
    from llguidance import LLMatcher  # noqa: PLC0415 - optional, and unused without a grammar

    error = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    return None if error.startswith("WARNING") else error or None


class _SchemaRelaxer:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def schema(self, schema: object) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        original = cast("Mapping[str, Any]", schema)
        relaxed = {
            key: self._value(key, value)
            for key, value in original.items()
            if key not in _UNENFORCED_KEYWORDS and key not in _SCALAR_KEYWORDS
        }
        if "oneOf" in relaxed:
            choices = relaxed.pop("oneOf")
            relaxed.setdefault("anyOf", choices)
        if any(_pattern_error(pattern) for pattern in _mapping(relaxed, "patternProperties")):
            relaxed = {key: value for key, value in relaxed.items() if key not in _KEY_KEYWORDS}
        return relaxed | self._property_names(original, relaxed) | _scalar_keywords(original)

    def _value(self, key: str, value: Any) -> Any:
        if key in SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
            subschemas = cast("Mapping[str, Any]", value)
            return {name: self.schema(subschema) for name, subschema in subschemas.items()}
        if key in SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            return [self.schema(subschema) for subschema in cast("list[Any]", value)]
        return self.schema(value) if key in SUBSCHEMA_KEYWORDS else value

    def _property_names(self, schema: Mapping[str, Any], relaxed: Schema) -> Schema:
        """Say `propertyNames` by the properties that it allows, where it is all that is said about them."""
        names = resolve_ref(schema.get("propertyNames"), self._root)
        if not isinstance(names, Mapping) or relaxed.keys() & {"properties", "patternProperties"}:
            return {}
        rules = cast("Mapping[str, Any]", names)
        values = relaxed.get("additionalProperties", True)
        allowed = rules.get("enum", [rules["const"]] if "const" in rules else None)
        if isinstance(allowed, list):
            properties = {name: values for name in cast("list[Any]", allowed) if isinstance(name, str)}
            return {"properties": properties, "additionalProperties": False}
        pattern = rules.get("pattern") or _FORMAT_PATTERNS.get(rules.get("format", ""))
        if not isinstance(pattern, str) or _pattern_error(pattern):
            return {}
        return {"patternProperties": {pattern: values}, "additionalProperties": False}


def _scalar_keywords(schema: Mapping[str, Any]) -> Schema:
    """Collect the limits of strings and numbers that llguidance can enforce together."""
    given = {key: schema[key] for key in _SCALAR_KEYWORDS if key in schema}
    kept = {key: schema[key] for key in ("type",) if key in schema}
    if not given or not _is_refused(kept | given):
        return given
    for key, value in given.items():
        if key == "format" and value in _FORMAT_PATTERNS and "pattern" not in given:
            kept["pattern"] = _FORMAT_PATTERNS[value]
        elif not _is_refused(kept | {key: value}):
            kept[key] = value
        elif key == "pattern" and not _is_regex(value):
            kept[key] = value  # nobody could check it, so it stays to be refused
    return kept


def _is_refused(schema: Schema) -> bool:
    """Whether llguidance can't express a schema; what no value can satisfy stays to be refused."""
    error = schema_error(narrow_schema(schema, ""))
    return error is not None and "Unsatisfiable" not in error


def _pattern_error(pattern: str) -> bool:
    return _is_refused({"type": "string", "pattern": pattern})


def _is_regex(pattern: object) -> bool:
    try:
        re.compile(str(pattern))
    except re.error:
        return False
    return True


def _mapping(schema: Schema, key: str) -> Mapping[str, Any]:
    value = schema.get(key)
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}

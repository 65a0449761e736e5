"""Schema narrowing: limits that a JSON schema leaves open, so that guided decoding terminates.

Every instance of the narrowed schema is one of the original.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

Schema: TypeAlias = dict[str, Any]

MAX_STRING_LENGTH = 512
"""Of a string without a limit of its own: a small model may not close the quotes before `max_tokens`."""

MAX_KEY_LENGTH = 64
"""Of a key in an object that allows any keys."""

_ANY_KEY = f"^.{{0,{MAX_KEY_LENGTH}}}$"

ANY_VALUE: Schema = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_STRING_LENGTH},
        {"type": ["number", "boolean", "null"]},
        {"type": "array", "items": {"$ref": "#/$defs/any"}},
        {
            "type": "object",
            "patternProperties": {_ANY_KEY: {"$ref": "#/$defs/any"}},
            "additionalProperties": False,
        },
    ]
}
"""Any JSON. It refers to itself as `#/$defs/any` of the root."""

# They restrict nothing. `discriminator` is OpenAPI's, which pydantic writes beside `oneOf`.
_ANNOTATION_KEYWORDS = frozenset(
    {"title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"discriminator", "$comment", "$schema", "$id"}
)
SCHEMA_MAP_KEYWORDS = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
SCHEMA_LIST_KEYWORDS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
SUBSCHEMA_KEYWORDS = frozenset(
    {"items", "additionalItems", "unevaluatedItems", "contains", "not", "if", "then", "else"}
    | {"additionalProperties", "unevaluatedProperties", "propertyNames"}
)
_APPLICATOR_KEYWORDS = frozenset(
    {"$ref", "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentSchemas"}
)
_OPEN_OBJECT_KEYWORDS = frozenset(
    {"patternProperties", "additionalProperties", "unevaluatedProperties", "minProperties", "propertyNames"}
)
_OBJECT_KEYWORDS = _OPEN_OBJECT_KEYWORDS | {"properties", "required"}


def narrow_schema(schema: Mapping[str, Any], ref_prefix: str) -> Schema:
    """Limit strings without a limit, close objects that don't say that they are open, and drop annotations.

    `ref_prefix` is the JSON pointer to the schema in the bundled one, such as `#/$defs/response`, and is prepended to its
    references. The bundle has to hold `ANY_VALUE` as `$defs/any`.
    """
    return _SchemaNarrower(schema, ref_prefix).schema(schema)


class _SchemaNarrower:
    def __init__(self, root: Mapping[str, Any], ref_prefix: str) -> None:
        self._root = root
        self._ref_prefix = ref_prefix
        self._has_no_composition = not any(map(_combines_object_schemas, _iter_subschemas(root)))

    def schema(self, schema: object) -> Any:
        """Narrow a schema or subschema. What is no schema is left for the grammar compiler to reject."""
        if schema is True:
            return self.schema({})
        if not isinstance(schema, Mapping):
            return schema
        original = cast("Mapping[str, Any]", schema)
        narrowed = {
            key: self._value(key, value) for key, value in original.items() if key not in _ANNOTATION_KEYWORDS
        }
        if not narrowed.keys() - {"$defs", "definitions"}:
            return narrowed | {"$ref": "#/$defs/any"} if self._has_no_composition else narrowed
        if "anyOf" not in narrowed and self._is_discriminated_union(original):
            narrowed["anyOf"] = narrowed.pop("oneOf")
        return self._limit_keys(_limit_string(narrowed))

    def _value(self, key: str, value: Any) -> Any:
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            return self._ref_prefix + value[1:]
        if key in SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
            subschemas = cast("Mapping[str, Any]", value)
            return {name: self.schema(subschema) for name, subschema in subschemas.items()}
        if key in SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            return [self.schema(subschema) for subschema in cast("list[Any]", value)]
        return self.schema(value) if key in SUBSCHEMA_KEYWORDS else value

    def _is_discriminated_union(self, schema: Mapping[str, Any]) -> bool:
        """Whether a `oneOf` has pydantic's discriminator, so that no two choices can match and `anyOf` is equivalent.

        llguidance takes `oneOf` only where it sees that itself, and it does not follow references.
        """
        tag, choices = _get_path(schema, "discriminator", "propertyName"), _get_path(schema, "oneOf")
        if not isinstance(tag, str) or not isinstance(choices, list):
            return False
        schemas = [resolve_ref(choice, self._root) for choice in cast("list[Any]", choices)]
        consts = [
            _get_path(choice, "properties", tag, "const")
            for choice in schemas
            if tag in _string_list(choice, "required")
        ]
        distinct = {const for const in consts if isinstance(const, str)}
        return bool(schemas) and len(distinct) == len(schemas)

    def _limit_keys(self, schema: Schema) -> Schema:
        is_plain_object = "object" in _types(schema) and not schema.keys() & _APPLICATOR_KEYWORDS
        if not (self._has_no_composition and is_plain_object):
            return schema
        if not schema.keys() & (_OBJECT_KEYWORDS - {"additionalProperties", "minProperties"}):
            values = schema.get("additionalProperties", {"$ref": "#/$defs/any"})
            return schema | {"patternProperties": {_ANY_KEY: values}, "additionalProperties": False}
        is_open = bool(schema.keys() & _OPEN_OBJECT_KEYWORDS)
        requires_more = not set(_string_list(schema, "required")) <= set(_string_list(schema, "properties"))
        return schema if is_open or requires_more else schema | {"additionalProperties": False}


def resolve_ref(schema: Any, root: Mapping[str, Any]) -> Any:
    """Follow the `$ref` of a schema, if it has one, into the root schema."""
    ref = _get_path(schema, "$ref")
    return _get_path(root, *ref.split("/")[1:]) if isinstance(ref, str) else schema


def _limit_string(schema: Schema) -> Schema:
    if "string" not in _types(schema) or schema.keys() & {"maxLength", "enum", "const", "format"}:
        return schema
    min_length = schema.get("minLength")
    return schema | {"maxLength": max(MAX_STRING_LENGTH, min_length if isinstance(min_length, int) else 0)}


def _types(schema: Schema) -> Sequence[str]:
    """The `type` of a schema; object where there is none but `properties`."""
    if isinstance(name := schema.get("type"), str):
        return (name,)
    return _string_list(schema, "type") or (("object",) if "properties" in schema else ())


def _get_path(value: Any, *path: str) -> Any:
    """Follow keys into nested mappings; None where the path ends early."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = cast("Mapping[str, Any]", value).get(key)
    return value


def _string_list(schema: Any, key: str) -> Sequence[str]:
    """A list of strings, or the keys of a mapping; empty for anything else a schema may wrongly hold."""
    value = _get_path(schema, key)
    if not isinstance(value, list | Mapping):
        return ()
    return [name for name in cast("list[Any]", value) if isinstance(name, str)]


def _combines_object_schemas(schema: Mapping[str, Any]) -> bool:
    """Whether several schemas apply to one object, so that none of them may be closed."""
    parts = schema.get("allOf")
    several = isinstance(parts, list) and len(cast("list[Any]", parts)) > 1
    return several or bool(schema.keys() & _APPLICATOR_KEYWORDS and schema.keys() & _OBJECT_KEYWORDS)


def _iter_subschemas(schema: object) -> Iterator[Mapping[str, Any]]:
    """Iterate over a schema and all its subschemas."""
    if not isinstance(schema, Mapping):
        return
    known = cast("Mapping[str, Any]", schema)
    yield known
    for key, value in known.items():
        subschemas: Any = ()
        if key in SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
            subschemas = cast("Mapping[str, Any]", value).values()
        elif key in SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            subschemas = cast("list[Any]", value)
        elif key in SUBSCHEMA_KEYWORDS:
            subschemas = (value,)
        for subschema in subschemas:
            yield from _iter_subschemas(subschema)

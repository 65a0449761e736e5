"""A JSON schema made narrower, so that a model that follows it word by word comes to an end.

Whatever fits the narrower schema fits the one it was made from.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

Schema: TypeAlias = dict[str, Any]

MAX_STRING_LENGTH = 512
"""Characters of a string whose schema sets no limit: a small model can run on inside the quotes until its tokens are up."""

MAX_KEY_LENGTH = 64
"""Characters of a key in an object that may have any."""

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
"""Any JSON. It refers to itself, so it has to stand in the root as `$defs/any`."""

# They allow and forbid nothing. `discriminator` is OpenAPI's hint, as pydantic writes it beside `oneOf`.
_ANNOTATION_KEYWORDS = frozenset(
    {"title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"discriminator", "$comment", "$schema", "$id"}
)
_SCHEMA_MAP_KEYWORDS = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
_SCHEMA_LIST_KEYWORDS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SUBSCHEMA_KEYWORDS = frozenset(
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
    """Limit the strings that have no limit, and close the objects that don't say that they are open.

    Args:
        schema: As the user wrote it; it is not changed.
        ref_prefix: Where it will stand in a larger schema, such as `#/$defs/answer`; its references are bent to there. The
            root of the larger one has to hold `ANY_VALUE` as `$defs/any`.

    Returns:
        The narrower schema, without remarks such as `description`.

    """
    return _SchemaNarrower(schema, ref_prefix).schema(schema)


class _SchemaNarrower:
    def __init__(self, root: Mapping[str, Any], place: str) -> None:
        self._root = root
        self._place = place
        self._has_no_composition = not any(map(_combines_object_schemas, _iter_subschemas(root)))

    def schema(self, schema: object) -> Any:
        """Narrow a schema or one of its parts. What is no schema is left for the compiler to complain about."""
        if schema is True:
            return self.schema({})
        if not isinstance(schema, Mapping):
            return schema
        kept = {
            key: self._value(key, value)
            for key, value in cast("Mapping[str, Any]", schema).items()
            if key not in _ANNOTATION_KEYWORDS
        }
        if not kept.keys() - {"$defs", "definitions"}:
            return kept | {"$ref": "#/$defs/any"} if self._has_no_composition else kept
        if "anyOf" not in kept and self._is_discriminated_union(cast("Mapping[str, Any]", schema)):
            kept["anyOf"] = kept.pop("oneOf")
        return self._limit_keys(_limit_string(kept))

    def _value(self, key: str, value: Any) -> Any:
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            return self._place + value[1:]
        if key in _SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
            named = cast("Mapping[str, Any]", value)
            return {name: self.schema(inner) for name, inner in named.items()}
        if key in _SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            return [self.schema(inner) for inner in cast("list[Any]", value)]
        return self.schema(value) if key in _SUBSCHEMA_KEYWORDS else value

    def _is_discriminated_union(self, schema: Mapping[str, Any]) -> bool:
        """Tell whether one key says which of `oneOf` it is, so that two can never fit: pydantic's discriminated unions.

        llguidance takes `oneOf` only where it can tell that itself, and it does not look behind references.
        """
        tag, choices = _get_path(schema, "discriminator", "propertyName"), _get_path(schema, "oneOf")
        if not isinstance(tag, str) or not isinstance(choices, list):
            return False
        ones = [self._resolved(one) for one in cast("list[Any]", choices)]
        names = [
            _get_path(one, "properties", tag, "const") for one in ones if tag in _string_list(one, "required")
        ]
        known = {name for name in names if isinstance(name, str)}
        return bool(ones) and len(known) == len(ones)

    def _resolved(self, schema: Any) -> Any:
        ref = _get_path(schema, "$ref")
        return _get_path(self._root, *ref.split("/")[1:]) if isinstance(ref, str) else schema

    def _limit_keys(self, schema: Schema) -> Schema:
        if (
            not self._has_no_composition
            or "object" not in _types(schema)
            or schema.keys() & _APPLICATOR_KEYWORDS
        ):
            return schema
        if not schema.keys() & (_OBJECT_KEYWORDS - {"additionalProperties", "minProperties"}):
            values = schema.get("additionalProperties", {"$ref": "#/$defs/any"})
            return schema | {"patternProperties": {_ANY_KEY: values}, "additionalProperties": False}
        is_open = bool(schema.keys() & _OPEN_OBJECT_KEYWORDS)
        needs_others = not set(_string_list(schema, "required")) <= set(_string_list(schema, "properties"))
        return schema if is_open or needs_others else schema | {"additionalProperties": False}


def _limit_string(schema: Schema) -> Schema:
    if "string" not in _types(schema) or schema.keys() & {"maxLength", "enum", "const", "format"}:
        return schema
    least = schema.get("minLength")
    return schema | {"maxLength": max(MAX_STRING_LENGTH, least if isinstance(least, int) else 0)}


def _types(schema: Schema) -> Sequence[str]:
    """Get the types a schema names. One that names none, but talks of keys, means objects."""
    if isinstance(named := schema.get("type"), str):
        return (named,)
    return _string_list(schema, "type") or (("object",) if "properties" in schema else ())


def _get_path(value: Any, *path: str) -> Any:
    """Follow keys into dictionaries, as far as there are any."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = cast("Mapping[str, Any]", value).get(key)
    return value


def _string_list(schema: Any, key: str) -> Sequence[str]:
    """Read a list of names, or the keys of a dictionary; a schema may also hold nonsense."""
    value = _get_path(schema, key)
    if not isinstance(value, list | Mapping):
        return ()
    return [name for name in cast("list[Any]", value) if isinstance(name, str)]


def _combines_object_schemas(schema: Mapping[str, Any]) -> bool:
    """Tell whether an object is put together from several schemas, each of which must then leave room for the others."""
    parts = schema.get("allOf")
    several = isinstance(parts, list) and len(cast("list[Any]", parts)) > 1
    return several or bool(schema.keys() & _APPLICATOR_KEYWORDS and schema.keys() & _OBJECT_KEYWORDS)


def _iter_subschemas(schema: object) -> Iterator[Mapping[str, Any]]:
    """Go through a schema and all the schemas in it."""
    if not isinstance(schema, Mapping):
        return
    known = cast("Mapping[str, Any]", schema)
    yield known
    for key, value in known.items():
        inner: Any = ()
        if key in _SCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value).values()
        elif key in _SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            inner = cast("list[Any]", value)
        elif key in _SUBSCHEMA_KEYWORDS:
            inner = (value,)
        for one in inner:
            yield from _iter_subschemas(one)

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
_REMARKS = frozenset(
    {"title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"discriminator", "$comment", "$schema", "$id"}
)
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_LISTS_OF_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SINGLE_SCHEMAS = frozenset(
    {"items", "additionalItems", "unevaluatedItems", "contains", "not", "if", "then", "else"}
    | {"additionalProperties", "unevaluatedProperties", "propertyNames"}
)
_COMBINING = frozenset({"$ref", "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentSchemas"})
_OPENING_KEYS = frozenset(
    {"patternProperties", "additionalProperties", "unevaluatedProperties", "minProperties", "propertyNames"}
)
_ABOUT_KEYS = _OPENING_KEYS | {"properties", "required"}


def narrowed(schema: Mapping[str, Any], place: str) -> Schema:
    """Limit the strings that have no limit, and close the objects that don't say that they are open.

    Args:
        schema: As the user wrote it; it is not changed.
        place: Where it will stand in a larger schema, such as `#/$defs/answer`; its references are bent to there. The
            root of the larger one has to hold `ANY_VALUE` as `$defs/any`.

    Returns:
        The narrower schema, without remarks such as `description`.

    """
    return _Narrowing(schema, place).schema(schema)


class _Narrowing:
    def __init__(self, root: Mapping[str, Any], place: str) -> None:
        self._root = root
        self._place = place
        self._stands_alone = not any(map(_mixes, _all_schemas(root)))

    def schema(self, schema: object) -> Any:
        """Narrow a schema or one of its parts. What is no schema is left for the compiler to complain about."""
        if schema is True:
            return self.schema({})
        if not isinstance(schema, Mapping):
            return schema
        kept = {
            key: self._value(key, value)
            for key, value in cast("Mapping[str, Any]", schema).items()
            if key not in _REMARKS
        }
        if not kept.keys() - {"$defs", "definitions"}:
            return kept | {"$ref": "#/$defs/any"} if self._stands_alone else kept
        if "anyOf" not in kept and self._is_tagged(cast("Mapping[str, Any]", schema)):
            kept["anyOf"] = kept.pop("oneOf")
        return self._keys_limited(_string_limited(kept))

    def _value(self, key: str, value: Any) -> Any:
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            return self._place + value[1:]
        if key in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            named = cast("Mapping[str, Any]", value)
            return {name: self.schema(inner) for name, inner in named.items()}
        if key in _LISTS_OF_SCHEMAS and isinstance(value, list):
            return [self.schema(inner) for inner in cast("list[Any]", value)]
        return self.schema(value) if key in _SINGLE_SCHEMAS else value

    def _is_tagged(self, schema: Mapping[str, Any]) -> bool:
        """Tell whether one key says which of `oneOf` it is, so that two can never fit: pydantic's discriminated unions.

        llguidance takes `oneOf` only where it can tell that itself, and it does not look behind references.
        """
        tag, choices = _read(schema, "discriminator", "propertyName"), _read(schema, "oneOf")
        if not isinstance(tag, str) or not isinstance(choices, list):
            return False
        ones = [self._resolved(one) for one in cast("list[Any]", choices)]
        names = [_read(one, "properties", tag, "const") for one in ones if tag in _names(one, "required")]
        known = {name for name in names if isinstance(name, str)}
        return bool(ones) and len(known) == len(ones)

    def _resolved(self, schema: Any) -> Any:
        ref = _read(schema, "$ref")
        return _read(self._root, *ref.split("/")[1:]) if isinstance(ref, str) else schema

    def _keys_limited(self, schema: Schema) -> Schema:
        if not self._stands_alone or "object" not in _types(schema) or schema.keys() & _COMBINING:
            return schema
        if not schema.keys() & (_ABOUT_KEYS - {"additionalProperties", "minProperties"}):
            values = schema.get("additionalProperties", {"$ref": "#/$defs/any"})
            return schema | {"patternProperties": {_ANY_KEY: values}, "additionalProperties": False}
        is_open = bool(schema.keys() & _OPENING_KEYS)
        needs_others = not set(_names(schema, "required")) <= set(_names(schema, "properties"))
        return schema if is_open or needs_others else schema | {"additionalProperties": False}


def _string_limited(schema: Schema) -> Schema:
    if "string" not in _types(schema) or schema.keys() & {"maxLength", "enum", "const", "format"}:
        return schema
    least = schema.get("minLength")
    return schema | {"maxLength": max(MAX_STRING_LENGTH, least if isinstance(least, int) else 0)}


def _types(schema: Schema) -> Sequence[str]:
    """Get the types a schema names. One that names none, but talks of keys, means objects."""
    if isinstance(named := schema.get("type"), str):
        return (named,)
    return _names(schema, "type") or (("object",) if "properties" in schema else ())


def _read(value: Any, *path: str) -> Any:
    """Follow keys into dictionaries, as far as there are any."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = cast("Mapping[str, Any]", value).get(key)
    return value


def _names(schema: Any, key: str) -> Sequence[str]:
    """Read a list of names, or the keys of a dictionary; a schema may also hold nonsense."""
    value = _read(schema, key)
    if not isinstance(value, list | Mapping):
        return ()
    return [name for name in cast("list[Any]", value) if isinstance(name, str)]


def _mixes(schema: Mapping[str, Any]) -> bool:
    """Tell whether an object is put together from several schemas, each of which must then leave room for the others."""
    parts = schema.get("allOf")
    several = isinstance(parts, list) and len(cast("list[Any]", parts)) > 1
    return several or bool(schema.keys() & _COMBINING and schema.keys() & _ABOUT_KEYS)


def _all_schemas(schema: object) -> Iterator[Mapping[str, Any]]:
    """Go through a schema and all the schemas in it."""
    if not isinstance(schema, Mapping):
        return
    known = cast("Mapping[str, Any]", schema)
    yield known
    for key, value in known.items():
        inner: Any = ()
        if key in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value).values()
        elif key in _LISTS_OF_SCHEMAS and isinstance(value, list):
            inner = cast("list[Any]", value)
        elif key in _SINGLE_SCHEMAS:
            inner = (value,)
        for one in inner:
            yield from _all_schemas(one)

"""Says whether a value fits a JSON schema: as much of the standard as the tests use, written apart from what they test."""

import re

_KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_REMARKS = {"title", "description", "default", "$defs", "definitions", "discriminator"}


def fits(value, schema, root=None):
    """Tell whether a value fits; an unknown keyword is an error, so that nothing passes unseen."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    return all(
        _CHECKS[keyword](value, wanted, schema, root)
        for keyword, wanted in schema.items()
        if keyword not in _REMARKS
    )


def _is(value, kind):
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _found(ref, root):
    for step in ref.removeprefix("#").split("/")[1:]:
        root = root[step]
    return root


def _others(value, schema):
    """Get the keys that neither `properties` nor `patternProperties` speaks of."""
    patterns = schema.get("patternProperties", {})
    return [
        key
        for key in value
        if key not in schema.get("properties", {})
        and not any(re.search(pattern, key) for pattern in patterns)
    ]


def _for(kind, check):
    """Make a check that only speaks of values of one kind."""
    return lambda value, wanted, schema, root: not _is(value, kind) or check(value, wanted, schema, root)


_CHECKS = {
    "type": lambda value, wanted, *_: any(
        _is(value, kind) for kind in ([wanted] if isinstance(wanted, str) else wanted)
    ),
    "enum": lambda value, wanted, *_: value in wanted,
    "const": lambda value, wanted, *_: value == wanted,
    "$ref": lambda value, wanted, _, root: fits(value, _found(wanted, root), root),
    "anyOf": lambda value, wanted, _, root: any(fits(value, one, root) for one in wanted),
    "allOf": lambda value, wanted, _, root: all(fits(value, one, root) for one in wanted),
    "oneOf": lambda value, wanted, _, root: sum(fits(value, one, root) for one in wanted) == 1,
    "properties": _for(
        "object",
        lambda value, wanted, _, root: all(
            fits(value[key], one, root) for key, one in wanted.items() if key in value
        ),
    ),
    "patternProperties": _for(
        "object",
        lambda value, wanted, _, root: all(
            fits(value[key], one, root)
            for pattern, one in wanted.items()
            for key in value
            if re.search(pattern, key)
        ),
    ),
    "additionalProperties": _for(
        "object",
        lambda value, wanted, schema, root: all(
            fits(value[key], wanted, root) for key in _others(value, schema)
        ),
    ),
    "required": _for("object", lambda value, wanted, *_: all(key in value for key in wanted)),
    "items": _for("array", lambda value, wanted, _, root: all(fits(one, wanted, root) for one in value)),
    "minItems": _for("array", lambda value, wanted, *_: len(value) >= wanted),
    "maxItems": _for("array", lambda value, wanted, *_: len(value) <= wanted),
    "minLength": _for("string", lambda value, wanted, *_: len(value) >= wanted),
    "maxLength": _for("string", lambda value, wanted, *_: len(value) <= wanted),
    "pattern": _for("string", lambda value, wanted, *_: re.search(wanted, value) is not None),
    "format": _for("string", lambda value, wanted, *_: re.fullmatch(_FORMATS[wanted], value) is not None),
    "minimum": _for("number", lambda value, wanted, *_: value >= wanted),
    "maximum": _for("number", lambda value, wanted, *_: value <= wanted),
    "exclusiveMinimum": _for("number", lambda value, wanted, *_: value > wanted),
}
_FORMATS = {"date": r"\d{4}-\d{2}-\d{2}", "uuid": r"[0-9a-fA-F-]{36}"}

"""An example for a JSON schema, with what the user said in it where that fits."""

import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"['\"\u201c\u300c]([^'\"\u201d\u300d]+)['\"\u201d\u300d]")
_PLACE = re.compile(r"\b(?:in|of|for) ([A-Z][\w-]*(?:[ ,]+[A-Z][\w-]*)*)")
_CHOICES = "oneOf", "anyOf", "allOf"


class Examples:
    """Makes examples out of one user's words; each word or number is used once."""

    def __init__(self, words: str, root: Mapping[str, Any]) -> None:
        self._root = root
        self._texts = _QUOTED.findall(words) + _PLACE.findall(words)
        self._numbers = [float(number) for number in _NUMBER.findall(words)]

    def example(self, schema: Mapping[str, Any], name: str = "value") -> Any:
        """Make the smallest sensible value."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        if inner := next((schema[keyword][0] for keyword in _CHOICES if schema.get(keyword)), None):
            return self.example(inner, name)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        return self._of_kind(kind[0] if isinstance(kind, list) else kind, schema, name)

    def _of_kind(self, kind: str, schema: Mapping[str, Any], name: str) -> Any:
        match kind:
            case "object":
                return {key: self.example(inner, key) for key, inner in schema.get("properties", {}).items()}
            case "array":
                return [self.example(schema.get("items", {}), name)] * max(1, schema.get("minItems", 1))
            case "integer" | "number":
                number = self._number(schema)
                return int(number) if kind == "integer" else number
            case "boolean" | "null":
                return True if kind == "boolean" else None
            case _:
                return self._texts.pop(0) if self._texts else f"an example of {name}"

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while reference := schema.get("$ref"):
            schema = self._root
            for step in reference.removeprefix("#/").split("/"):
                schema = schema[step]
        return schema

    def _number(self, schema: Mapping[str, Any]) -> float:
        if self._numbers:
            return self._numbers.pop(0)
        return schema.get("minimum", max(1, schema.get("exclusiveMinimum", 0) + 1))


def example_of(schema: Mapping[str, Any], words: str) -> Any:
    """Make a value that a schema allows.

    Args:
        schema: JSON schema.
        words: What the user said: quoted texts, places and numbers of it are used.
    """
    return Examples(words, schema).example(schema)


def quoted(words: str) -> list[str]:
    """Find the quoted texts."""
    return _QUOTED.findall(words)

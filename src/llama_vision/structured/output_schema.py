"""Output schema: what a reply's JSON is validated against, and which Python value it becomes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

from llama_vision.core.errors import ConfigurationError
from llama_vision.structured.extract import extract_json
from llama_vision.structured.validation import first_violation, format_validation_error

_TOO_DEEP = "It is nested too deeply."
_INVALID_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")  # OpenAI's rule for the names of tools and schemas
_MAX_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """A JSON schema, and the class whose instances replies become.

    Attributes:
        json_schema: For the model to read, and for validation where there is no class; None takes any JSON.
        model_class: A pydantic class (version 1 or 2); None leaves JSON as it is.
        partial_class: A pydantic class for partial values that `model_class` does not take yet.
    """

    json_schema: Mapping[str, Any] | None
    model_class: type | None = None
    partial_class: type[BaseModel] | None = None

    @classmethod
    def from_schema(cls, schema: object) -> "OutputSchema":
        """Read a pydantic class, or a JSON schema, also in OpenAI's `response_format`; None takes any JSON.

        Raises:
            ConfigurationError: It is neither.
        """
        if schema is None:
            return cls(None)
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return cls(schema.model_json_schema(), schema)
        if isinstance(schema, Mapping):
            return cls(_unwrap_openai_schema(cast("Mapping[str, Any]", schema)))
        raise ConfigurationError(f"schema is a JSON schema or a pydantic class, and not {schema!r}.")

    @property
    def is_object(self) -> bool:
        """Whether it can be the parameters of a tool."""
        schema = self.json_schema or {}
        return schema.get("type") == "object" or ("type" not in schema and "properties" in schema)

    @property
    def name(self) -> str:
        """The schema's title, with only the characters that all servers accept in a tool's name."""
        title = str((self.json_schema or {}).get("title") or "answer")
        return _INVALID_IN_NAMES.sub("_", title)[:_MAX_NAME_LENGTH]

    def validate(self, value: object, *, validates_dicts: bool = True) -> Any:
        """Convert parsed JSON to an instance of the class, or leave it as it is; `validates_dicts` checks it even without a class.

        Raises:
            ValueError: It does not fit; the text says where, for the model to read.
        """
        try:
            if self.model_class is not None:
                return _to_model(self.model_class, value)
            problem = first_violation(value, self.json_schema or {}) if validates_dicts else ""
        except RecursionError:
            raise ValueError(_TOO_DEEP) from None
        if problem:
            raise ValueError(problem)
        return value

    def parse_partial(self, value: object) -> Any:
        """Convert the JSON so far to an instance of either class, or leave it as it is; None if neither takes it."""
        if self.model_class is None:
            return value
        for candidate in filter(None, (self.model_class, self.partial_class)):
            try:
                return _to_model(candidate, value)
            except ValueError:
                pass
        return None


def parse_json(text: str, *, truncated: bool = False) -> Any:
    """Parse the JSON in a reply, which may be in a code fence or between other text; `truncated` if the reply was cut off.

    NaN, Infinity and numbers too large for a float are not JSON.

    Raises:
        ValueError: There is none; the text says why, for the model to read.
    """
    try:
        value = json.loads(extract_json(text, truncated=truncated), strict=False)
        json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        raise ValueError(f"It is not JSON: {error}") from error
    return value


def _unwrap_openai_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Unwrap the schema of OpenAI's `response_format`, titled by its name there."""
    inner: Mapping[str, Any] = schema.get("json_schema", schema)
    return {**inner["schema"], "title": inner.get("name") or "answer"} if "schema" in inner else dict(inner)


def _to_model(model_class: type, value: object) -> Any:
    try:
        if issubclass(model_class, BaseModel):
            # As JSON, so that strict models take dates, enumerations and tuples as JSON has them.
            return model_class.model_validate_json(json.dumps(value))
        return cast("Any", model_class).parse_obj(value)  # pydantic 1
    except ValueError as error:
        raise ValueError(format_validation_error(error)) from error

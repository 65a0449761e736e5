"""The form that an answer shall have: a pydantic class, a TypedDict, a JSON schema, or any JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from llama_vision.structured.extract import extract_json
from llama_vision.structured.validation import first_violation

_MOST_ERRORS = 10
_TOO_DEEP = "It is nested too deeply."


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """What is to become of the JSON that a model writes.

    Attributes:
        schema: As the user gave it; None takes any JSON.
        json_schema: The same for the model to read; None where there is none.
        validates_dicts: Whether dictionaries are compared with the schema too. Pydantic classes always check.

    """

    schema: dict[str, Any] | type | None
    json_schema: dict[str, Any] | None
    validates_dicts: bool = True

    @classmethod
    def from_schema(
        cls, schema: dict[str, Any] | type | None, *, validates_dicts: bool, strict: bool | None = None
    ) -> "OutputSchema":
        """Read a schema.

        Args:
            schema: A pydantic class of version 1 or 2, a TypedDict, or a JSON schema; None takes any JSON.
            validates_dicts: Whether dictionaries are compared with it too.
            strict: True closes all objects to further fields.

        Returns:
            The form.

        Raises:
            ValueError: It is none of these.

        """
        if schema is None:
            return cls(None, None, validates_dicts)
        if isinstance(schema, dict):
            schema = _unwrap_openai_schema(schema)
            if not (strict and "properties" in schema) and not schema.keys() & {
                "name",
                "function",
                "toolSpec",
            }:
                return cls(schema, schema, validates_dicts)  # LangChain's conversion loses lists
        return cls(schema, convert_to_json_schema(schema, strict=strict), validates_dicts)

    @property
    def is_object(self) -> bool:
        """Whether it can be the arguments of a tool, which are an object always."""
        return self.json_schema is not None and self.json_schema.get("type", "object") == "object"

    @property
    def name(self) -> str:
        """The schema's name, in the letters that all servers take for names of tools."""
        title = str((self.json_schema or {}).get("title") or "answer")
        return re.sub(r"[^a-zA-Z0-9_-]", "_", title)[:64]

    def parse(self, text: str) -> Any:
        """Read an answer.

        Args:
            text: All that the model wrote.

        Returns:
            An instance of the class, or what JSON has for it.

        Raises:
            ValueError: It does not fit; the text says where, for the model to read.

        """
        try:
            value = json.loads(extract_json(text), strict=False)
        except RecursionError:
            raise ValueError(_TOO_DEEP) from None
        except ValueError as error:
            raise ValueError(f"It is not JSON: {error}") from error
        return self.validate(value)

    def validate(self, value: object) -> Any:
        """Turn parsed JSON into what the user wants; see `parse`."""
        try:
            return self._fitting(value)
        except RecursionError:
            raise ValueError(_TOO_DEEP) from None

    def parse_partial(self, value: object) -> Any:
        """Turn the beginning of an answer into what the user wants; see `validate`."""
        if isinstance(self.schema, type) and is_basemodel_subclass(self.schema):
            return _to_model(self.schema, value)
        if not isinstance(value, dict | list):
            raise ValueError("There is nothing to show yet.")  # noqa: TRY004 - as where it does not fit
        return cast("object", value)

    def _fitting(self, value: object) -> Any:
        if isinstance(self.schema, type) and is_basemodel_subclass(self.schema):
            return _to_model(self.schema, value)
        if (
            self.validates_dicts
            and self.json_schema
            and (problem := first_violation(value, self.json_schema))
        ):
            raise ValueError(problem)
        return value


def _unwrap_openai_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Take a schema out of OpenAI's `response_format`, and give it a name where it has none."""
    schema = schema.get("json_schema", schema)
    if "schema" in schema:
        schema = {**schema["schema"], "title": schema.get("name") or "answer"}
    return (
        schema if schema.keys() & {"title", "name", "function", "toolSpec"} else {"title": "answer", **schema}
    )


def _to_model(schema: type, value: object) -> Any:
    try:
        if issubclass(schema, BaseModel):
            # As JSON, so that strict models take dates, enumerations and tuples as JSON has them.
            return schema.model_validate_json(json.dumps(value))
        return cast("Any", schema).parse_obj(value)  # pydantic 1
    except ValueError as error:
        raise ValueError(_format_errors(error)) from error


def _format_errors(error: ValueError) -> str:
    """Say what a class of either version of pydantic found, in a few lines."""
    found = cast("list[Mapping[str, Any]]", cast("Any", error).errors())
    lines = [
        f"{'.'.join(map(str, one['loc'])) or 'the answer'}: {one['msg']}" for one in found[:_MOST_ERRORS]
    ]
    return "\n".join(lines)

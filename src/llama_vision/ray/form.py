"""The form that answers shall have: a JSON schema or a pydantic class, how it is asked for, and whether an answer fits."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, assert_never, cast

from pydantic import BaseModel, ValidationError

from llama_vision.core.errors import ConfigurationError
from llama_vision.core.messages import Message, Text
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest, ResponseFormat, Tool, ToolChoice
from llama_vision.providers.provider import Provider
from llama_vision.structured.extract import extract_json, schema_instructions
from llama_vision.structured.method import best_method
from llama_vision.structured.validation import first_violation

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_MOST_IN_A_NAME = 64


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """What the answers shall be.

    Attributes:
        schema: JSON schema.
        model_class: The pydantic class that it is of, which checks more than a schema says; None where there is none.
        way: How it is asked for.

    """

    schema: Mapping[str, Any]
    model_class: type[BaseModel] | None
    way: Literal["json_schema", "function_calling", "prompt"]

    @classmethod
    def of(cls, schema: object, provider: Provider, model: str) -> "OutputSchema":
        """Read a schema, and choose the surest way to have it kept.

        Args:
            schema: A JSON schema, or a pydantic class.
            provider: Who is asked.
            model: Which model.

        Returns:
            The form.

        Raises:
            ConfigurationError: It is neither.

        """
        checks = schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None
        if checks is None and not isinstance(schema, Mapping):
            raise ConfigurationError(f"schema is a JSON schema or a pydantic class, and not {schema!r}.")
        spelled = checks.model_json_schema() if checks else cast("Mapping[str, Any]", schema)
        way = best_method(provider, model)
        if way == "function_calling" and spelled.get("type") != "object":  # as a tool's arguments have to be
            way = "prompt"
        return cls(spelled, checks, way)

    def apply_to(self, request: ChatRequest) -> ChatRequest:
        """Make a request ask for it."""
        name = _NOT_IN_A_NAME.sub("_", str(self.schema.get("title") or "answer"))[:_MOST_IN_A_NAME]
        match self.way:
            case "json_schema":
                wanted = ResponseFormat("json_schema", name, self.schema)
                return replace(request, response_format=wanted)
            case "function_calling":
                tool = Tool(name, str(self.schema.get("description") or ""), self.schema)
                return replace(request, tools=(tool,), tool_choice=ToolChoice("required"))
            case "prompt":
                *before, last = request.messages
                words = Text(f"\n\n{schema_instructions(self.schema)}")
                return replace(request, messages=(*before, Message("user", (*last.parts, words))))
            case _:
                assert_never(self.way)

    def read(self, reply: Reply) -> str:
        """Find the JSON in an answer.

        Args:
            reply: The answer.

        Returns:
            JSON that fits.

        Raises:
            ValueError: There is none; the text says what is wrong, for the model to read.

        """
        try:
            value = json.loads(extract_json(output_text(reply)), strict=False, parse_constant=_refuse)
            text = json.dumps(value, ensure_ascii=False)
            if self.model_class is not None:
                self.model_class.model_validate_json(text)
            elif problem := first_violation(value, self.schema):
                raise ValueError(problem)
        except ValidationError as error:
            raise ValueError(format_validation_error(error)) from error
        except RecursionError:
            raise ValueError("It is nested too deeply.") from None
        except json.JSONDecodeError as error:
            raise ValueError(f"It is not JSON: {error}") from error
        return text


def output_text(reply: Reply) -> str:
    """Take the arguments of the first tool call, else the words: some models write there what they should call with."""
    return reply.tool_calls[0].arguments if reply.tool_calls else reply.text


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's JSON has and JSON has not."""
    raise ValueError(f"{constant} is no JSON.")


def format_validation_error(error: ValidationError) -> str:
    """Say what is wrong, one line each, without pydantic's links and without repeating the answer."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "\n".join(f"{'.'.join(map(str, one['loc'])) or 'The answer'}: {one['msg']}" for one in found)

"""What both interfaces share in reading a request: JSON by a schema, with errors that name the field."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict

from llama_vision.core.errors import InvalidRequestError
from llama_vision.core.models import CONTEXT_WINDOW
from llama_vision.core.request import ChatRequest

_ModelT = TypeVar("_ModelT", bound=BaseModel)
_MAX_ERRORS = 3

UNLIMITED_TOKENS = CONTEXT_WINDOW
"""Where a client sets no limit: the engine ends a reply where the context window does."""


class Ignored(BaseModel):
    """A part of a message of which fields that are not known mean nothing."""

    model_config = ConfigDict(extra="ignore")


class Refusing(BaseModel):
    """A request, of which a field that is not known is refused: it would have no effect."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """A client's request.

    Attributes:
        chat: It, with the model's name as the client wrote it.
        stream: Whether the reply is streamed.
    """

    chat: ChatRequest
    stream: bool


def parse_body(model: type[_ModelT], body: bytes) -> _ModelT:
    """Parse a request's JSON body.

    Raises:
        InvalidRequestError: It is not JSON, or a field is missing, wrong or not known.
    """
    try:
        return model.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise InvalidRequestError(_explain(error)) from None  # its own text quotes the content


def _explain(error: pydantic.ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [_explain_one(detail["type"], detail["loc"], detail["msg"]) for detail in details[:_MAX_ERRORS]]
    if len(details) > _MAX_ERRORS:
        lines.append(f"and {len(details) - _MAX_ERRORS} more")
    return "; ".join(lines)


def _explain_one(kind: str, location: Iterable[int | str], message: str) -> str:
    where = ".".join(map(str, location))
    if kind == "extra_forbidden":
        return f"{where} is not supported here: leave it out"
    if kind == "json_invalid":
        return f"The body is no JSON: {message}"
    return f"{where}: {message}" if where else message


def refuse(problem: str) -> InvalidRequestError:
    """Make the error of a request that can't be served as it is."""
    return InvalidRequestError(problem)


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}

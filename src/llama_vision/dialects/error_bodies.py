"""What providers say when they refuse: finding the message in any of their shapes, and the error that it means.

The status decides and the text refines, because providers' own pages disagree about the type names.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from llama_vision.core.errors import (
    AuthenticationError,
    ContextTooLongError,
    InsufficientCreditsError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StatusError,
)
from llama_vision.core.json_types import as_mapping
from llama_vision.dialects.workers_ai.error_codes import find_error_code

_BY_STATUS: dict[int, type[StatusError]] = {
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    408: ServerError,
    409: ServerError,
    429: RateLimitError,
}
_FIRST_SERVER_ERROR = 500
_FIRST_CLIENT_ERROR = 400
_LAST_STATUS = 599
_SHOWN = 500

_TOO_LONG = re.compile(
    r"maximum context length|context window|prompt is too long|too many tokens",
    re.IGNORECASE,
)
_TOO_LONG_CODE = (
    '"context_length_exceeded"'  # Groq's message doesn't say it; inside someone's words quotes are escaped
)
_NO_CREDITS = re.compile(r"out of credits|payment method|insufficient (credits|balance|funds)", re.IGNORECASE)
_DEEPINFRA_NO_PAYMENT = "inference prohibited, please enter a payment method"
_REQUEST_ID_HEADERS = ("x-request-id", "x-inference-id", "cf-aig-log-id", "cf-ray")


def status_error(status: int, body: bytes, headers: Mapping[str, str]) -> StatusError:
    """Make the error that an answer stands for.

    Args:
        status: The HTTP status, or the code that a failure behind a 200 names.
        body: The whole body; it need not be JSON.
        headers: Of the answer; names in lower case.

    Returns:
        The error, to be raised. Its `retry_after` is left to whoever has a clock.

    """
    text = body.decode(errors="replace").strip()
    fields = _parse_object(text)
    message = _message(fields) or _summarize_page(text)
    meaning = find_error_code(fields)
    if meaning is not None and meaning.advice:
        message = f"{message} {meaning.advice}"
    kind = (
        meaning.kind
        if meaning is not None and not _is_server_error(status)
        else _error_class(status, message, text)
    )
    error = kind(f"{status}: {message}")
    error.status_code = status
    error.body = text[:_SHOWN]
    request_id: Any = fields.get("requestId")
    error.request_id = find_request_id(headers) or (request_id if isinstance(request_id, str) else None)
    return error


def find_request_id(headers: Mapping[str, str]) -> str | None:
    """Find the id to quote to the provider's support in an answer's headers."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if name in headers), None)


def error_in_body(payload: bytes) -> StatusError | None:
    """Look for a failure in an answer that came with a 200.

    Args:
        payload: A body, or the payload of one event of a stream.

    Returns:
        The error, or None where the payload tells of none.

    """
    fields = _parse_object(payload)
    told = fields.get("error") or fields.get("detail") or fields.get("statusCode")  # the last is AI/ML API's
    if not (told or fields.get("success") is False or fields.get("object") == "error"):  # and this vLLM's
        return None
    return status_error(_embedded_status(fields), payload, {})


def _parse_object(text: str | bytes) -> Mapping[str, Any]:
    """Read a JSON object; empty where it is none, or nested without end."""
    try:
        return as_mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _is_server_error(status: int) -> bool:
    return status >= _FIRST_SERVER_ERROR


def _error_class(status: int, message: str, body: str) -> type[StatusError]:
    if _is_server_error(status):
        return ServerError
    if status == 400 and _DEEPINFRA_NO_PAYMENT in message:  # noqa: PLR2004 - DeepInfra says so with a 402 or a 400
        return InsufficientCreditsError
    if status == 403 and _NO_CREDITS.search(message):  # noqa: PLR2004 - AI/ML API says so with a 403
        return InsufficientCreditsError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status < _FIRST_CLIENT_ERROR:
        return StatusError
    too_long = _TOO_LONG.search(message) or _TOO_LONG_CODE in body
    return ContextTooLongError if too_long else InvalidRequestError


def _embedded_status(fields: Mapping[str, Any]) -> int:
    """Find the status that a failure behind a 200 would have had; a server's failure where it names none."""
    if (meaning := find_error_code(fields)) is not None:
        return meaning.status
    error = as_mapping(fields.get("error"))
    code: Any = error.get("code") or fields.get("statusCode") or fields.get("code")
    while "error" in error:  # nested where an event named `error` holds an object of that name too
        error = as_mapping(error["error"])
        code = error.get("code")
    code = (
        int(code) if isinstance(code, str) and re.fullmatch(r"\d{3}", code) else code
    )  # AI/ML API's is a string
    is_status = isinstance(code, int) and _FIRST_CLIENT_ERROR <= code <= _LAST_STATUS
    return code if is_status else _FIRST_SERVER_ERROR


def _message(fields: Mapping[str, Any]) -> str:
    try:
        return _find_message(fields)
    except RecursionError:  # nested without end
        return ""


def _find_message(value: Any) -> str:
    """Dig for a message: the shapes are listed in tests/dialects/test_error_bodies.py."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, (_find_message(item) for item in cast("list[Any]", value))))
    if fields := as_mapping(value):
        for name in ("error", "errors", "detail", "message", "msg"):
            if words := _find_message(fields.get(name)):
                place = fields.get("loc")
                where = ".".join(map(str, cast("list[Any]", place))) + ": " if isinstance(place, list) else ""
                code: Any = fields.get("code")
                # Cloudflare's codes say more than its words; an HTTP status stands before them already.
                own_code = (
                    f"{code}: " if isinstance(code, int) and code > _LAST_STATUS and name == "message" else ""
                )
                return where + own_code + words
    return ""


def _summarize_page(text: str) -> str:
    """Shorten an HTML page or plain text."""
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return (title[1].strip() if title else text[:_SHOWN]) or "no explanation was given"

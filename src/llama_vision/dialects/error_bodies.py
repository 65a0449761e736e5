"""From error bodies to exceptions: the message in any of the providers' shapes, and the class of the error.

The status decides and the text refines, because providers' own pages disagree about the type names.
"""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from llama_vision.core.errors import (
    AuthenticationError,
    ContextTooLongError,
    InsufficientCreditsError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
    StatusError,
)
from llama_vision.core.json_types import as_mapping, is_too_deep
from llama_vision.core.surrogates import replace_surrogates
from llama_vision.dialects.context_overflow import read_token_counts, says_context_overflow

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
_TOO_MANY_REQUESTS = 429
_MAX_QUOTED = 500
_MAX_MESSAGE = 5000

# OpenAI's 429 of an account without credit or at its monthly limit, which other hosts and proxies repeat:
# https://platform.openai.com/docs/guides/error-codes. The message alone does not tell: some say it of a minute's limit too.
_QUOTA_CODES = ('"insufficient_quota"', '"billing_hard_limit_reached"')

_TITLE_BEGIN = re.compile("<title>", re.IGNORECASE)
_TITLE_END = re.compile("</title>", re.IGNORECASE)
_CODE_IN_MESSAGE = re.compile(r"\b(\d{4,5})\s*:")
_ERROR_STATUS = re.compile(r"[45]\d\d", re.ASCII)
_STATUS_FIELDS = ("status_code", "statusCode", "status", "code", "type")
_STATUS_OF_NAME = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "invalid_request": 400,
    "model_not_found": 404,
    "insufficient_quota": 429,
    "billing_hard_limit_reached": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
}
"""OpenAI's codes and types, and those in their manner; only for errors behind a 200 that name no status."""
_REQUEST_ID_HEADERS = ("x-request-id", "x-inference-id", "cf-aig-log-id", "cf-ray")


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """The meaning of a provider's own error code.

    Attributes:
        status: The HTTP status that goes with it.
        kind: The class of the error.
        advice: What to do, where the message does not say.
    """

    status: int
    kind: type[StatusError]
    advice: str = ""


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """A message that means something else than its status does.

    Attributes:
        status: The HTTP status it comes with; None for any.
        pattern: Regular expression that is searched for in the message; case does not matter.
        kind: The class of the error.
        advice: What to do, where the message does not say.
    """

    status: int | None
    pattern: str
    kind: type[StatusError]
    advice: str = ""


OUT_OF_CREDITS = ErrorRule(
    403, r"out of credits|payment method|insufficient (credits|balance|funds)", InsufficientCreditsError
)

# What llama.cpp says: Ollama from 0.30 with a 500 (https://github.com/ollama/ollama/issues/16490), LM Studio where that is its engine.
UNKNOWN_ARCHITECTURE = ErrorRule(
    None,
    "unknown model architecture: .?mllama",
    ModelNotFoundError,
    "This version of the server does not run Llama 3.2 Vision. Use provider='local', or SGLang with provider='sglang'.",
)


@dataclass(frozen=True, slots=True)
class ErrorParser:
    """Makes exceptions of a provider's error bodies.

    Attributes:
        rules: Messages that mean something else than their status does.
        codes: The provider's own codes in `errors[].code`, or at the beginning of `errors[].message`.
    """

    rules: tuple[ErrorRule, ...] = (OUT_OF_CREDITS, UNKNOWN_ARCHITECTURE)
    codes: Mapping[int, ErrorCode] = field(default_factory=dict[int, ErrorCode], hash=False, repr=False)

    def parse(self, status: int, body: bytes, headers: Mapping[str, str]) -> StatusError:
        """Make the exception for an error response, without `retry_after`, which takes a clock.

        The body need not be JSON; header names are in lower case.
        """
        text = body.decode(errors="replace").strip()
        fields = _parse_object(text)
        message = _message(fields) or _summarize_page(text)
        rule = self._find_rule(status, message)
        kind = rule.kind if rule else _error_class(status, message, text)
        code = self.find_code(fields)
        if code and status < _FIRST_SERVER_ERROR:
            kind = code.kind
        shown = replace_surrogates(message[:_MAX_MESSAGE])
        if known := code or rule:
            shown = f"{shown} {known.advice}".rstrip()
        error = kind(f"{status}: {shown}")
        if isinstance(error, ContextTooLongError):
            read_token_counts(error, f"{message} {text}")
        error.status_code = status
        error.body = text[:_MAX_QUOTED]
        request_id: Any = fields.get("requestId")
        error.request_id = find_request_id(headers) or (
            replace_surrogates(request_id) if isinstance(request_id, str) else None
        )
        return error

    def find(self, payload: bytes) -> StatusError | None:
        """Find an error behind a 200 in a body or in the payload of a stream's event; None where it reports none."""
        fields = _parse_object(payload)
        # `statusCode` is AI/ML API's shape, `"object": "error"` vLLM's, `success` Cloudflare's; a code and a message gateways'.
        reported = fields.get("error") or fields.get("detail") or fields.get("statusCode")
        reported = reported or (fields.get("code") and (fields.get("message") or fields.get("msg")))
        if not (reported or fields.get("success") is False or fields.get("object") == "error"):
            return None
        code = self.find_code(fields)
        return self.parse(_embedded_status(fields) if code is None else code.status, payload, {})

    def find_code(self, fields: Mapping[str, Any]) -> ErrorCode | None:
        """Look up the first known code of a body of the shape `{"errors": [{"code", "message"}]}`.

        A message without a code of its own may begin with one: `AiError: 5007: ...`.
        """
        errors: Any = fields.get("errors")
        for entry in map(as_mapping, cast("list[Any]", errors) if isinstance(errors, list) else ()):
            code: Any = entry.get("code")
            if not isinstance(code, int):
                message: Any = entry.get("message")
                found = _CODE_IN_MESSAGE.search(message) if isinstance(message, str) else None
                code = int(found[1]) if found else None
            if code in self.codes:
                return self.codes[code]
        return None

    def _find_rule(self, status: int, message: str) -> ErrorRule | None:
        for rule in self.rules:
            if rule.status in (status, None) and re.search(rule.pattern, message, re.IGNORECASE):
                return rule
        return None


def find_request_id(headers: Mapping[str, str]) -> str | None:
    """Find the id to quote to the provider's support in response headers."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if name in headers), None)


def _error_class(status: int, message: str, body: str) -> type[StatusError]:
    if status >= _FIRST_SERVER_ERROR:
        is_overflow = says_context_overflow(message, body, refused=False)  # DeepInfra refuses with a 500
        return ContextTooLongError if is_overflow else ServerError
    if status == _TOO_MANY_REQUESTS and any(code in body for code in _QUOTA_CODES):
        return QuotaExhaustedError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status < _FIRST_CLIENT_ERROR:
        return StatusError
    is_overflow = says_context_overflow(message, body, refused=True)
    return ContextTooLongError if is_overflow else InvalidRequestError


def _parse_object(text: str | bytes) -> Mapping[str, Any]:
    """Parse a JSON object; empty where it is none, or nested without end."""
    if is_too_deep(text if isinstance(text, bytes) else text.encode(errors="surrogatepass")):
        return {}
    try:
        return as_mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _embedded_status(fields: Mapping[str, Any]) -> int:
    """Find the status that an error behind a 200 would have had; 500 where it names none. The inner object counts more."""
    levels = [fields]
    # An event named `error` may hold an object of that name too.
    while inner := as_mapping(levels[-1].get("error")):
        levels.append(inner)
    values: list[Any] = [level.get(name) for level in reversed(levels) for name in _STATUS_FIELDS]
    numbers = (
        int(value) for value in values if isinstance(value, int | str) and _ERROR_STATUS.fullmatch(str(value))
    )
    names = (
        _STATUS_OF_NAME[value] for value in values if isinstance(value, str) and value in _STATUS_OF_NAME
    )
    return next(itertools.chain(numbers, names), _FIRST_SERVER_ERROR)


def _message(fields: Mapping[str, Any]) -> str:
    try:
        return _find_message(fields)
    except RecursionError:  # nested without end
        return ""


def _find_message(value: Any) -> str:
    """Search for a message: the shapes are listed in tests/dialects/test_error_bodies.py."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, (_find_message(item) for item in cast("list[Any]", value))))
    if not (fields := as_mapping(value)):
        return ""
    for name in ("error", "errors", "detail", "message", "msg"):
        if text := _find_message(fields.get(name)):
            path = fields.get("loc")
            where = ".".join(map(str, cast("list[Any]", path))) + ": " if isinstance(path, list) else ""
            code: Any = fields.get("code")
            # A provider's own code is worth quoting; an HTTP status precedes the message already.
            is_own_code = isinstance(code, int) and code > _LAST_STATUS and name == "message"
            # OpenRouter's message is "Provider returned error", and this is the provider's.
            raw: Any = as_mapping(fields.get("metadata")).get("raw")
            cause = f": {raw}" if name == "message" and isinstance(raw, str) else ""
            return where + (f"{code}: " if is_own_code else "") + text + cause
    return ""


def _summarize_page(text: str) -> str:
    """Shorten an HTML page or plain text."""
    begin = _TITLE_BEGIN.search(text)
    end = begin and _TITLE_END.search(
        text, begin.end()
    )  # one pattern for both would take the square of many titles
    title = text[begin.end() : end.start()].strip() if begin and end else text
    return title[:_MAX_QUOTED] or "no explanation was given"

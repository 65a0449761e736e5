"""What a client is told of an error: the status, OpenAI's type and code, and a text without what is only for this side."""

from dataclasses import dataclass

from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextTooLongError,
    ImageError,
    InvalidRequestError,
    LlamaVisionError,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    StatusError,
    UnsupportedInputError,
)

CLIENT_CLOSED = 499
"""The status in log and metrics of a request whose client has left (nginx's)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a client is told.

    Attributes:
        status: The HTTP status.
        kind: OpenAI's type of the error.
        code: OpenAI's code of the error.
        message: The text.
        retry_after_s: The `Retry-After` header in seconds.
    """

    status: int
    kind: str
    message: str
    code: str | None = None
    retry_after_s: float | None = None


_STATUSES: tuple[tuple[type[LlamaVisionError], int, str, str | None], ...] = (
    (ContextTooLongError, 400, "invalid_request_error", "context_length_exceeded"),
    (AuthenticationError, 401, "authentication_error", "invalid_api_key"),
    (PermissionDeniedError, 403, "permission_error", None),
    (ModelNotFoundError, 404, "invalid_request_error", "model_not_found"),
    (RequestTimeoutError, 504, "timeout_error", None),
    (RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (InvalidRequestError, 400, "invalid_request_error", None),
    (ImageError, 400, "invalid_request_error", "invalid_image"),
    (UnsupportedInputError, 400, "invalid_request_error", "unsupported"),
    (ConfigurationError, 400, "invalid_request_error", None),
)


def to_failure(error: Exception) -> Failure:
    """Describe an error to a client; of one that is not ours only that there was one: its text may hold anything."""
    if not isinstance(error, LlamaVisionError):
        return Failure(500, "server_error", "The server failed; its log says why.")
    # Provider and model, which `str` adds, say nothing to a client.
    message = str(error.args[0]) if error.args else type(error).__name__
    retry_after = error.retry_after if isinstance(error, StatusError) else None
    own_status: int = getattr(error, "status_code", 0)
    for error_class, status, kind, code in _STATUSES:
        if isinstance(error, error_class):
            return Failure(own_status or status, kind, message, code, retry_after)
    return Failure(own_status or 500, "server_error", message, None, retry_after)

"""Errors of `ChatLlamaVision`: each is both an error of this package and LangChain's own for the same cause."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from typing_extensions import override

from llama_vision.core import errors
from llama_vision.core.errors import LlamaVisionError, StatusError
from llama_vision.core.reply import Reply

_LANGCHAIN_ERRORS: dict[type[LlamaVisionError], type[ModelError]] = {
    LlamaVisionError: ModelError,
    errors.MissingKeyError: ModelAuthenticationError,
    errors.BudgetExceededError: ModelPermissionDeniedError,  # as of the provider's own limits
    errors.UnsupportedInputError: ModelInvalidRequestError,
    errors.ImageError: ModelInvalidRequestError,
    errors.DocumentError: ModelInvalidRequestError,
    errors.ConnectionFailedError: ModelConnectionError,
    errors.RequestTimeoutError: ModelTimeoutError,
    errors.InvalidRequestError: ModelInvalidRequestError,
    errors.ContextTooLongError: ContextOverflowError,
    errors.AuthenticationError: ModelAuthenticationError,
    errors.InsufficientCreditsError: ModelPermissionDeniedError,  # LangChain has none for 402
    errors.PermissionDeniedError: ModelPermissionDeniedError,
    errors.ModelNotFoundError: ModelNotFoundError,
    errors.RateLimitError: ModelRateLimitError,
    errors.ServerError: ModelAPIError,
    errors.MalformedReplyError: ModelAPIError,
    errors.TruncatedStreamError: ModelConnectionError,
    errors.LocalModelError: ModelAPIError,
}
"""LangChain's class for each of this package; a class that is not here gets those of its bases."""


@dataclass(frozen=True, slots=True)
class TraceResponse:
    """The response behind an error, for tracers: `body` is the provider's, and the partial reply. LangChain reads it as `.response`."""

    body: Any

    def json(self) -> Any:
        """Return the body, as `httpx.Response` does."""
        return self.body


@dataclass(frozen=True, slots=True)
class TraceStatusResponse(TraceResponse):
    """A response with an error status; of its headers only `retry-after`, since others, such as cookies, may be secret."""

    status_code: int
    headers: Mapping[str, str]


class TranslateErrors:
    """Context manager that raises our errors as LangChain's, too; a class for the reason in `backends/http/error_mapping.py`."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LlamaVisionError) and not isinstance(error, ModelError):
            # With the original's traceback and cause: chaining it would print it twice.
            raise to_langchain_error(error).with_traceback(error.__traceback__) from error.__cause__


class _TranslatedError(LlamaVisionError, ModelError):
    """Base of the classes created here."""

    original: type[LlamaVisionError]

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.original, self.args, self.__dict__)  # pickle finds no class that is in no module


def to_langchain_error(error: LlamaVisionError) -> LlamaVisionError:
    """Convert one of our errors to one of a subclass of its class and of LangChain's.

    Text and attributes are the same, `is_retryable` is `retryable`, and `response` has what tracers display.
    """
    response = _trace_response(error)
    more: dict[str, Any] = {} if response is None else {"response": response}
    return _make(type(error), error.args, {**error.__dict__, **more})


def _make(
    kind: type[LlamaVisionError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> LlamaVisionError:
    """Create an error without its constructor, which may take other arguments."""
    both = _translated_class(kind)
    error = both.__new__(both, *args)
    error.__dict__.update(attributes)
    return error


@cache
def _translated_class(kind: type[LlamaVisionError]) -> type[LlamaVisionError]:
    bases = dict.fromkeys(
        _LANGCHAIN_ERRORS[ancestor] for ancestor in kind.__mro__ if ancestor in _LANGCHAIN_ERRORS
    )
    attributes = {
        "__doc__": kind.__doc__,
        "__module__": __name__,
        "original": kind,
        "is_retryable": kind.retryable,
    }
    return cast("type[LlamaVisionError]", type(kind.__name__, (_TranslatedError, kind, *bases), attributes))


def _trace_response(error: LlamaVisionError) -> TraceResponse | None:
    """Collect what tracers display; keys and account ids were redacted when the error was made."""
    partial = _partial_reply(error.partial)
    if not isinstance(error, StatusError) or not error.status_code:
        return TraceResponse(partial) if partial else None
    try:
        body: Any = json.loads(error.body)
    except (ValueError, RecursionError):
        body = error.body
    headers = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    return TraceStatusResponse({"error": body, **partial} if partial else body, error.status_code, headers)


def _partial_reply(partial: Reply | None) -> dict[str, Any]:
    """Return what had arrived of a reply; LangChain keeps nothing of a streamed `invoke`."""
    if partial is None or not (partial.text or partial.tool_calls):
        return {}
    calls = [{"name": call.name, "arguments": call.arguments} for call in partial.tool_calls]
    return {"partial": {"text": partial.text, **({"tool_calls": calls} if calls else {})}}

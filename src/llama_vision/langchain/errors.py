"""Every error that leaves `ChatLlamaVision` is one of ours and the one that LangChain has for the same trouble."""

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

from llama_vision.core import errors as ours
from llama_vision.core.errors import LlamaVisionError, StatusError
from llama_vision.core.reply import Reply

_LANGCHAIN_ERRORS: dict[type[LlamaVisionError], type[ModelError]] = {
    LlamaVisionError: ModelError,
    ours.MissingKeyError: ModelAuthenticationError,
    ours.UnsupportedInputError: ModelInvalidRequestError,
    ours.ImageError: ModelInvalidRequestError,
    ours.ConnectionFailedError: ModelConnectionError,
    ours.RequestTimeoutError: ModelTimeoutError,
    ours.InvalidRequestError: ModelInvalidRequestError,
    ours.ContextTooLongError: ContextOverflowError,
    ours.AuthenticationError: ModelAuthenticationError,
    ours.InsufficientCreditsError: ModelPermissionDeniedError,  # LangChain has none for 402
    ours.PermissionDeniedError: ModelPermissionDeniedError,
    ours.ModelNotFoundError: ModelNotFoundError,
    ours.RateLimitError: ModelRateLimitError,
    ours.ServerError: ModelAPIError,
    ours.MalformedReplyError: ModelAPIError,
    ours.TruncatedStreamError: ModelConnectionError,
    ours.LocalModelError: ModelAPIError,
}
"""What LangChain calls it. An error that is not here is what its nearest ancestors are."""


@dataclass(frozen=True, slots=True)
class TraceResponse:
    """What a tracer is told of the answer behind an error; LangChain looks for it as `.response`.

    Attributes:
        body: What the provider said, and what had arrived of a reply before.

    """

    body: Any

    def json(self) -> Any:
        """Give the body, as httpx's responses do."""
        return self.body


@dataclass(frozen=True, slots=True)
class TraceStatusResponse(TraceResponse):
    """An answer with an error status.

    Attributes:
        status_code: The HTTP status.
        headers: How long to wait, where the provider said so. All others stay here: a cookie is a secret, too.

    """

    status_code: int
    headers: Mapping[str, str]


class TranslateErrors:
    """Raises our errors as LangChain's, too.

    It is a class and no generator, for the reason given in `backends/failures.py`.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LlamaVisionError) and not isinstance(error, ModelError):
            # With the trace and the cause of the original, which would only be shown twice.
            raise to_langchain_error(error).with_traceback(error.__traceback__) from error.__cause__


class _TranslatedError(LlamaVisionError, ModelError):
    """What the classes made here have in common."""

    ours: type[LlamaVisionError]

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (
            self.ours,
            self.args,
            self.__dict__,
        )  # the class is in no module, where pickle looks for it


def to_langchain_error(error: LlamaVisionError) -> LlamaVisionError:
    """Make of one of our errors one that is LangChain's, too.

    Args:
        error: As it was raised.

    Returns:
        An error of a subclass of its class and of LangChain's, with the same text and attributes. `is_retryable` says
        what `retryable` says. Where there is something to trace, it is in `response`.

    """
    traced = _traced(error)
    more: dict[str, Any] = {} if traced is None else {"response": traced}
    return _made(type(error), error.args, {**error.__dict__, **more})


def _made(
    kind: type[LlamaVisionError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> LlamaVisionError:
    """Make an error without its constructor, which may want other arguments."""
    both = _translated_class(kind)
    error = both.__new__(both, *args)
    error.__dict__.update(attributes)
    return error


@cache
def _translated_class(kind: type[LlamaVisionError]) -> type[LlamaVisionError]:
    theirs = dict.fromkeys(
        _LANGCHAIN_ERRORS[ancestor] for ancestor in kind.__mro__ if ancestor in _LANGCHAIN_ERRORS
    )
    told = {"__doc__": kind.__doc__, "__module__": __name__, "ours": kind, "is_retryable": kind.retryable}
    return cast("type[LlamaVisionError]", type(kind.__name__, (_TranslatedError, kind, *theirs), told))


def _traced(error: LlamaVisionError) -> TraceResponse | None:
    """Say for tracers what an error knows, from which keys and account ids were taken when it was made."""
    arrived = _partial_reply(error.partial)
    if not isinstance(error, StatusError):
        return TraceResponse(arrived) if arrived else None
    try:
        said: Any = json.loads(error.body)
    except (ValueError, RecursionError):
        said = error.body
    headers = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    return TraceStatusResponse({"error": said, **arrived} if arrived else said, error.status_code, headers)


def _partial_reply(partial: Reply | None) -> dict[str, Any]:
    """Tell what had arrived of a reply; of a streamed `invoke` LangChain itself keeps nothing."""
    if partial is None or not (partial.text or partial.tool_calls):
        return {}
    calls = [{"name": call.name, "arguments": call.arguments} for call in partial.tool_calls]
    return {"partial": {"text": partial.text, **({"tool_calls": calls} if calls else {})}}

"""The exceptions.

LlamaVisionError                 .retryable .partial .tried; the text names provider and model, never a key
  ConfigurationError             before any I/O
    MissingKeyError              names every variable looked at, and where to get a key
    UnknownProviderError         lists the known names
    MissingDependencyError       names the extra to install
  BudgetExceededError            max_cost_usd could be exceeded: nothing was sent
  UnsupportedInputError          this provider can't express it: which part, and what would work
  ImageError                     unreadable, too large, refused address: which image, and why
    DocumentError                the same of a PDF, or of its pages
  ConnectionFailedError  *       no HTTP status
  RequestTimeoutError    *       no response in time, or a stream that stalled
  StatusError                    .status_code .body .request_id .retry_after
    InvalidRequestError          400, 405, 413, 422
      ContextTooLongError        the prompt and the reply don't fit the model's context
    AuthenticationError          401
    InsufficientCreditsError     402, and 403 where it means that
    PermissionDeniedError        403
      LicenseNotAcceptedError    the model's license has to be accepted first (Cloudflare 5016)
    ModelNotFoundError           404
    RateLimitError       *       429
      QuotaExhaustedError        used up for the day or the month (Cloudflare 3036, OpenAI's insufficient_quota), so not retryable
    ServerError          *       408, 409, 5xx
  StreamError                    trouble after a 200; .partial holds what had arrived
    MalformedReplyError          a payload that can't be read, quoted and shortened
    TruncatedStreamError         ended before the model finished
  BatchError                     a request of a batch without an answer
  LocalModelError                loading or generating on this machine

`*` = retryable
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from llama_vision.core.reply import Reply


class LlamaVisionError(Exception):
    """Base class of all exceptions of this package.

    Attributes:
        retryable: Whether the same request may succeed a little later.
        provider: The provider's name, once it is known.
        model: The provider's id of the model, once it is known.
        partial: The part of a streamed reply that had arrived.
        tried: Where several providers stand in for each other: who was asked, in order, as in a reply's metadata.
    """

    retryable: ClassVar[bool] = False
    provider: str | None = None
    model: str | None = None
    partial: Reply | None = None
    tried: tuple[Mapping[str, Any], ...] = ()

    def with_context(self, provider: str, model: str | None = None) -> Self:
        """Set `provider` and `model`, unless they are known already.

        Args:
            provider: The provider's name.
            model: The provider's id of the model.

        Returns:
            The error itself.
        """
        self.provider = self.provider or provider
        self.model = self.model or model
        return self

    def __str__(self) -> str:
        text = super().__str__()
        where = f"{self.provider}, {self.model}" if self.model else self.provider
        return f"{text} [{where}]" if where else text


class ConfigurationError(LlamaVisionError):
    """Something is set up wrongly; nothing was sent."""


class MissingKeyError(ConfigurationError):
    """No API key was given and none is in the environment."""


class UnknownProviderError(ConfigurationError):
    """There is no provider of this name."""


class MissingDependencyError(ConfigurationError, ImportError):
    """A package is needed that is not installed. An ImportError too, for code that goes on without."""


class BudgetExceededError(LlamaVisionError):
    """The call could cost more than is left of `max_cost_usd`; nothing was sent.

    Attributes:
        spent_usd: What was spent, as far as it is known or estimated.
        estimate_usd: What this call may cost at most.
        max_cost_usd: The budget.
    """

    spent_usd: float = 0.0
    estimate_usd: float = 0.0
    max_cost_usd: float = 0.0


class UnsupportedInputError(LlamaVisionError):
    """The provider has no way to express a part of the request; nothing was sent."""


class ImageError(LlamaVisionError):
    """An image can't be used; nothing was sent.

    Attributes:
        number: Which image of the request, from 1, where the text begins with it.
    """

    number: int | None = None

    @classmethod
    def numbered(cls, number: int, reason: object) -> Self:
        """Make the error of one image among several; the text begins with `Image` and its number."""
        error = cls(f"Image {number}: {reason}")
        error.number = number
        return error


class DocumentError(ImageError):
    """A document can't be used: damaged, encrypted, too large, or without the pages that are asked for."""


class ConnectionFailedError(LlamaVisionError):
    """There was no HTTP response: no connection, or it broke."""

    retryable = True


class RequestTimeoutError(LlamaVisionError):
    """The provider took too long. It may have done the work, and may bill it."""

    retryable = True


class StatusError(LlamaVisionError):
    """The provider responded with an error status.

    Attributes:
        status_code: The HTTP status; 0 where there was no response.
        body: The beginning of the response body.
        request_id: The id to quote to the provider's support.
        retry_after: Seconds after which the provider says to try again.
    """

    status_code: int = 0
    body: str = ""
    request_id: str | None = None
    retry_after: float | None = None


class InvalidRequestError(StatusError):
    """The provider does not accept the request (400, 405, 413, 422)."""


class ContextTooLongError(InvalidRequestError):
    """The prompt, or the prompt with the reply, is longer than the model's context.

    The local model raises it too, without a status; a few servers with a 500.

    Attributes:
        context_window: The limit in tokens, where the server names it.
        requested_tokens: The tokens of the prompt, or of prompt and reply, where the server names them.
    """

    context_window: int | None = None
    requested_tokens: int | None = None


class AuthenticationError(StatusError):
    """The key is wrong (401)."""


class InsufficientCreditsError(StatusError):
    """The account has no money left (402, and 403 where it means that)."""


class PermissionDeniedError(StatusError):
    """The account may not do this (403)."""


class LicenseNotAcceptedError(PermissionDeniedError):
    """The account has not accepted the model's license yet; the text says how to."""


class ModelNotFoundError(StatusError):
    """There is no such model or endpoint (404)."""


class RateLimitError(StatusError):
    """Too many requests (429)."""

    retryable = True


class QuotaExhaustedError(RateLimitError):
    """The account's quota is used up; a later try today is pointless."""

    retryable = False


class ServerError(StatusError):
    """The provider failed (408, 409, 5xx)."""

    retryable = True


class StreamError(LlamaVisionError):
    """The reply went wrong after a 200. It is never retried: text may have been delivered."""


class MalformedReplyError(StreamError):
    """A payload can't be read."""


class TruncatedStreamError(StreamError):
    """The stream ended before the model finished."""


class BatchError(LlamaVisionError):
    """A request of a batch has no answer: the batch failed its validation, expired or was cancelled before.

    Attributes:
        status: The batch's, or the request's: `failed`, `expired`, `cancelled`; `completed` where the provider left it out.
    """

    status: str = ""


class LocalModelError(LlamaVisionError):
    """A model on this machine could not be loaded, or failed while generating."""


FATAL_ERRORS: tuple[type[LlamaVisionError], ...] = (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    InsufficientCreditsError,
    LicenseNotAcceptedError,
    ModelNotFoundError,
    QuotaExhaustedError,
)
"""Errors that every other call to the same model would raise too: a batch stops at one."""

"""One call to a hosted model, without I/O: its HTTP requests, its errors, and what follows a failure."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import httpx

from llama_vision.adaptation.pipeline import AdaptedRequest
from llama_vision.backends.http.connection_pools import keeps_time
from llama_vision.backends.http.exchange import Exchange
from llama_vision.backends.http.redaction import Redactor
from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.backends.http.retry import RetryState, parse_retry_headers
from llama_vision.backends.http.settings import parse_url
from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidRequestError,
    LicenseNotAcceptedError,
    LlamaVisionError,
    ModelNotFoundError,
    StatusError,
)
from llama_vision.dialects.dialect import Dialect, WireRequest, fill_in_model
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.credentials import ApiKey, resolve_api_key
from llama_vision.providers.provider import Provider
from llama_vision.version import __version__

_logger = logging.getLogger("llama_vision")

_USER_AGENT = f"llama-vision/{__version__}"

_LIMIT_IN_TIMEOUTS = 2.0
"""`timeout` is for one silence, and servers break theirs with a byte: an answer gets twice as long in all."""

_NOT_SENT = Exchange(math.inf, math.inf)

_urls_without_stream_options: set[str] = set()
"""Base URLs that rejected `stream_options`: they are not asked for usage in streams again."""


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The configuration of one backend.

    Attributes:
        base_url: Everything before the dialect's path, as `parse_base_url` returns it.
        query: What follows the path of every address, without its question mark.
        deadline: Seconds that a call may take with all its retries; None for no limit.
        limit: Seconds for a response's head, a whole reply, and between two payloads of a stream; infinite for none.
    """

    provider: Provider
    dialect: Dialect
    base_url: str
    query: str
    api_key: ApiKey | None = field(repr=False)
    account_id: str | None = field(repr=False)
    accept_license: bool
    timeout: httpx.Timeout
    deadline: float | None
    max_retries: int
    headers: Mapping[str, str] = field(repr=False)
    images: ImageSettings
    limit: float = field(init=False)

    def __post_init__(self) -> None:
        silences = (self.timeout.connect, self.timeout.read, self.timeout.write)
        limit = _LIMIT_IN_TIMEOUTS * max(math.inf if seconds is None else seconds for seconds in silences)
        object.__setattr__(self, "limit", limit)


@dataclass(frozen=True, slots=True)
class RetryAction:
    """What to do before the next attempt.

    Attributes:
        delay: Seconds to wait.
        accept_license: Whether the license has to be accepted first.
        renew_key: Whether the API key has to be asked for again.
    """

    delay: float = 0.0
    accept_license: bool = False
    renew_key: bool = False


class PreparedCall:
    """One call: encoded once, however often it is sent.

    Attributes:
        exchange: The attempt under way, or the last one.
    """

    def __init__(
        self,
        config: HttpConfig,
        adapted: AdaptedRequest,
        *,
        stream: bool,
        deadline: float,
        wire: WireRequest | None = None,
        once: bool = False,
    ) -> None:
        """Encode a call.

        Args:
            config: Of its backend.
            adapted: What to send.
            stream: Whether a stream is asked for.
            deadline: When the call has to end, on the monotonic clock; infinite for never.
            wire: In place of the encoded request: another call to the provider.
            once: Whether it may be sent once only, since its effect is not known where no answer came.

        Raises:
            UnsupportedInputError: The provider can't express the request.
        """
        self._config = config
        self._adapted = adapted
        self._stream = stream
        self._request = adapted.request
        if config.base_url in _urls_without_stream_options:
            self._request = replace(self._request, stream_usage=False)
        self._wire = config.dialect.encode(self._request, stream=stream) if wire is None else wire
        self._deadline = deadline
        self._retries = RetryState(0 if once else config.max_retries, deadline=deadline)
        self._may_accept = config.accept_license and config.provider.license is not None
        self._may_renew_key = callable(config.api_key)
        self._may_resend = not once
        self._redactor = _make_redactor(adapted)
        self.exchange = _NOT_SENT

    def replace_key(self, api_key: str | None, refused: LlamaVisionError) -> None:
        """Send the next attempt with another key, or raise `refused` where it is the same.

        Raises:
            ConfigurationError: It is no key.
        """
        key = resolve_api_key(self._config.provider, api_key)
        if key == self._adapted.api_key:
            raise refused
        self._adapted = replace(self._adapted, api_key=key)
        self._redactor = _make_redactor(self._adapted)

    def build(
        self, own: httpx.Client | httpx.AsyncClient | None, leased: httpx.AsyncClient | None = None
    ) -> httpx.Request:
        """Build the next attempt's HTTP request.

        Args:
            own: The user's own client, whose settings count too.
            leased: The async client that is to send it.
        """
        return self._build(own, leased, self._wire)

    def build_license_request(
        self, own: httpx.Client | httpx.AsyncClient | None, leased: httpx.AsyncClient | None = None
    ) -> httpx.Request:
        """Build the HTTP request that accepts the model's license. See `build`.

        Raises:
            ConfigurationError: The provider has no license to accept.
        """
        agreement = self._config.provider.license
        if agreement is None:
            raise ConfigurationError(f"{self._config.provider.title} has no license to accept.")
        path = fill_in_model(agreement.path, self._request.model)
        return self._build(own, leased, WireRequest(path, agreement.body))

    def _build(
        self,
        own: httpx.Client | httpx.AsyncClient | None,
        leased: httpx.AsyncClient | None,
        wire: WireRequest,
    ) -> httpx.Request:
        config = self._config
        headers = {
            "user-agent": _USER_AGENT,
            **({"content-type": "application/json"} if wire.body else {}),
            "accept": "text/event-stream" if self._stream else "application/json",
            **self._authorization(own),
            **wire.headers,
            **{name.lower(): value for name, value in config.headers.items()},
        }
        url = parse_url(
            config.base_url
            + wire.path.replace("{account}", self._adapted.account_id or "")
            + (f"{'&' if '?' in wire.path else '?'}{config.query}" if config.query else "")
        )
        exchange = self.exchange = Exchange(
            config.limit,
            self._deadline,
            on_new_connection=not self._may_resend,
            waits_for_pool=own is not None,
        )
        if own is not None:
            request = own.build_request(wire.method, url, content=wire.body or None, headers=headers)
            request.extensions["timeout"] = exchange.plain_timeouts(config.timeout)
            is_async = isinstance(own, httpx.AsyncClient)
            request.extensions["trace"] = exchange.atrace if is_async else exchange.trace
            return request
        timed = leased is None or keeps_time(leased)
        timeouts = exchange.timeouts(config.timeout) if timed else exchange.plain_timeouts(config.timeout)
        # A client would take 20 us to add its defaults, and a request that is given its content 10 us to add these.
        framing = {"content-length": str(len(wire.body))} if wire.body or wire.method == "POST" else {}
        request = httpx.Request(
            wire.method,
            url,
            headers={
                "host": url.netloc.decode(),
                "accept-encoding": "gzip, deflate",
                **headers,
                **framing,
            },
            stream=httpx.ByteStream(wire.body),
            extensions={"timeout": timeouts},
        )
        request.read()  # for who looks into its content
        return request

    def _authorization(self, own: httpx.Client | httpx.AsyncClient | None) -> dict[str, str]:
        key, provider = self._adapted.api_key, self._config.provider
        # The user's own client may have its own, which a request's header would replace.
        if key is None or (own is not None and provider.key_header in own.headers):
            return {}
        return {provider.key_header.lower(): f"{provider.key_prefix}{key}"}

    def open_reply(self, response: httpx.Response) -> ReplyStream:
        """Begin to decode a response."""
        request = self._request
        decoder = self._config.dialect.decoder(
            request.model, self._lowercase_headers(response.headers), max_tokens=request.sampling.max_tokens
        )
        price = self._config.provider.model_info(request.model).price
        return ReplyStream(
            decoder,
            streamed=self._stream,
            price=price,
            stops=self._adapted.stop_strings,
            tools=self._adapted.text_parsed_tools,
            redactor=self._redactor,
        )

    def _lowercase_headers(self, headers: httpx.Headers) -> dict[str, str]:
        """Copy headers into a dict: a look-up in httpx.Headers takes 4 us, and a decoder does half a dozen."""
        redact = self._redactor.redact_plain  # a request id may repeat the key, and goes into metadata
        return {
            name.decode("latin-1").lower(): redact(value.decode("latin-1")) for name, value in headers.raw
        }

    def redact(self, body: bytes) -> bytes:
        """Take key and account out of a body, should the provider have repeated them."""
        text = body.decode(errors="surrogateescape")
        return self._redactor.redact(text).encode(errors="surrogateescape")

    def error_from_response(self, response: httpx.Response, body: bytes) -> StatusError:
        """Make the error of a response; key and account are redacted, should the provider have repeated them."""
        redact = self._redactor.redact
        error = self._config.dialect.errors.parse(response.status_code, self.redact(body), response.headers)
        error.args = (redact(str(error.args[0])), *error.args[1:])
        error.body = redact(error.body)
        error.request_id = error.request_id and redact(error.request_id)
        error.retry_after = parse_retry_headers(response.headers)
        if response.has_redirect_location:
            # Without its query, which may hold a token. It is not followed: the key would go to whatever host it names.
            location = redact(response.headers["location"]).partition("?")[0]
            error.args = (
                f"{error.status_code}: It redirects to {location}: set base_url to the right address.",
            )
        if self._is_wrong_address(error):
            error.args = (f"{str(error).rstrip('. ')}. {self._describe_address()}",)
        retired = self._config.provider.model_info(self._request.model).deprecation
        if retired and type(error) in (ModelNotFoundError, InvalidRequestError):
            error.args = (f"{error.args[0]} {retired}",)
        return error

    def _is_wrong_address(self, error: StatusError) -> bool:
        """Tell whether a 404 is about the path of the user's own address, and not about the model."""
        is_own = self._config.base_url != self._config.provider.base_url
        is_api_error = '"error"' in error.body and self._config.dialect.path not in error.body
        is_about_model = is_api_error or "model" in str(error).lower()
        return type(error) is ModelNotFoundError and is_own and not is_about_model

    def _describe_address(self) -> str:
        """Name the address and the rule, without the account and what else in it is secret."""
        url = parse_url(self._config.base_url).copy_with(userinfo=b"", query=None)
        return (
            f"The address was {url}{self._wire.path}: base_url has to be everything before {self._wire.path}, and at "
            "most servers ends in /v1."
        )

    def next_action(self, error: LlamaVisionError) -> RetryAction:
        """Decide what to do before the next attempt, or raise `error` where there is none."""
        if isinstance(error, LicenseNotAcceptedError) and self._may_accept:
            self._may_accept = False
            _logger.info("Accepting the license of %s at %s", self._request.model, self._config.provider.name)
            return RetryAction(accept_license=True)
        if isinstance(error, AuthenticationError) and self._may_renew_key:
            self._may_renew_key = False
            _logger.info("%s refuses the API key: asking for a new one", self._config.provider.name)
            return RetryAction(renew_key=True)
        if self._failed_unanswered(error):
            self._may_resend = False
            _logger.info(
                "%s closed an idle connection: sending again on a new one", self._config.provider.name
            )
            return RetryAction()
        if self._is_about_stream_options(error):
            _logger.info("%s rejects stream_options: asking again without", self._config.provider.name)
            _urls_without_stream_options.add(self._config.base_url)
            self._request = replace(self._request, stream_usage=False)
            self._wire = self._config.dialect.encode(self._request, stream=True)
            return RetryAction()
        command = self._config.provider.start_command
        if command and type(error) is ConnectionFailedError:
            error.args = (
                f"{error.args[0]} Start the server with `{command}`, or set base_url to its address.",
            )
        delay = self._retries.next_delay(error)
        _logger.info(
            "%s: %s, retrying in %.2f s (%d attempts left)",
            self._config.provider.name,
            f"status {error.status_code}" if isinstance(error, StatusError) else type(error).__name__,
            delay,
            self._retries.attempts_left + 1,
        )
        return RetryAction(delay=delay)

    def _failed_unanswered(self, error: LlamaVisionError) -> bool:
        """Whether the server had closed an idle connection by the time it was used again (RFC 9112, 9.3.1)."""
        unanswered = self.exchange.reused and not self.exchange.answered and not self.exchange.expired
        return unanswered and self._may_resend and isinstance(error, ConnectionFailedError)

    def _is_about_stream_options(self, error: LlamaVisionError) -> bool:
        # Once only: a field of that name in the user's extra_body or tools stays in the body.
        requested = self._stream and self._request.stream_usage and b'"stream_options"' in self._wire.body
        return requested and isinstance(error, InvalidRequestError) and "stream_options" in error.body


def _make_redactor(adapted: AdaptedRequest) -> Redactor:
    return Redactor(((adapted.api_key, "[key]"), (adapted.account_id, "[account]")))

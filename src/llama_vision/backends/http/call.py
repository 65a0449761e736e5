"""One call to a hosted model, without I/O: its HTTP requests, its errors, and what follows a failure."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import httpx

from llama_vision.adaptation.pipeline import AdaptedRequest
from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.backends.http.retry import RetryState, parse_retry_headers
from llama_vision.core.errors import (
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
from llama_vision.providers.provider import Provider
from llama_vision.version import __version__

_logger = logging.getLogger("llama_vision")

_USER_AGENT = f"llama-vision/{__version__}"

_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")

_urls_without_stream_options: set[str] = set()
"""Base URLs that rejected `stream_options`: they are not asked for usage in streams again."""


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The configuration of one backend.

    Raises:
        ConfigurationError: A header is malformed.
    """

    provider: Provider
    dialect: Dialect
    base_url: str
    api_key: str | None = field(repr=False)
    account_id: str | None
    accept_license: bool
    timeout: httpx.Timeout
    max_retries: int
    headers: Mapping[str, str] = field(repr=False)
    images: ImageSettings

    def __post_init__(self) -> None:
        """Refuse headers that httpx would refuse later, with an error that quotes them: one may hold a key."""
        for name, value in self.headers.items():
            if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
                raise ConfigurationError(
                    f"The header {name!r} holds a line break, a space or a letter that no header can have there."
                )


@dataclass(frozen=True, slots=True)
class RetryAction:
    """What to do before the next attempt.

    Attributes:
        delay: Seconds to wait.
        accept_license: Whether the license has to be accepted first.
    """

    delay: float = 0.0
    accept_license: bool = False


class PreparedCall:
    """One call: encoded once, however often it is sent."""

    def __init__(self, config: HttpConfig, adapted: AdaptedRequest, *, stream: bool) -> None:
        """Encode a call.

        Raises:
            UnsupportedInputError: The provider can't express the request.
        """
        self._config = config
        self._adapted = adapted
        self._stream = stream
        self._request = adapted.request
        if config.base_url in _urls_without_stream_options:
            self._request = replace(self._request, stream_usage=False)
        self._wire = config.dialect.encode(self._request, stream=stream)
        self._retries = RetryState(config.max_retries)
        self._may_accept = config.accept_license and config.provider.license is not None

    def build(self, client: httpx.Client | httpx.AsyncClient | None) -> httpx.Request:
        """Build the HTTP request; `client` is the user's own, whose settings count too, or None."""
        return self._build(client, self._wire)

    def build_license_request(self, client: httpx.Client | httpx.AsyncClient | None) -> httpx.Request:
        """Build the HTTP request that accepts the model's license.

        Raises:
            ConfigurationError: The provider has no license to accept.
        """
        agreement = self._config.provider.license
        if agreement is None:
            raise ConfigurationError(f"{self._config.provider.title} has no license to accept.")
        return self._build(
            client, WireRequest(fill_in_model(agreement.path, self._request.model), agreement.body)
        )

    def _build(self, client: httpx.Client | httpx.AsyncClient | None, wire: WireRequest) -> httpx.Request:
        key, provider = self._adapted.api_key, self._config.provider
        headers = {
            "user-agent": _USER_AGENT,
            "content-type": "application/json",
            "accept": "text/event-stream" if self._stream else "application/json",
            **({provider.key_header: provider.key_prefix + key} if key else {}),
            **wire.headers,
            **self._config.headers,
        }
        url = parse_url(
            self._config.base_url + wire.path.replace("{account}", self._adapted.account_id or "")
        )
        timeout = self._config.timeout
        if client is not None:
            return client.build_request("POST", url, content=wire.body, headers=headers, timeout=timeout)
        # A client would take 20 us to add its defaults.
        return httpx.Request(
            "POST",
            url,
            content=wire.body,
            headers={"accept-encoding": "gzip, deflate", **headers},
            extensions={"timeout": timeout.as_dict()},
        )

    def open_reply(self, response: httpx.Response) -> ReplyStream:
        """Begin to decode a response."""
        request = self._request
        decoder = self._config.dialect.decoder(
            request.model, _lowercase_headers(response.headers), max_tokens=request.sampling.max_tokens
        )
        price = self._config.provider.model_info(request.model).price
        return ReplyStream(
            decoder,
            streamed=self._stream,
            price=price,
            stops=self._adapted.stop_strings,
            tools=self._adapted.text_parsed_tools,
            redacted=tuple(filter(None, (self._adapted.api_key, self._adapted.account_id))),
        )

    def error_from_response(self, response: httpx.Response, body: bytes) -> StatusError:
        """Make the error of a response; key and account are redacted, should the provider have repeated them."""
        error = self._config.dialect.errors.parse(response.status_code, self._redact(body), response.headers)
        error.retry_after = parse_retry_headers(response.headers)
        if response.has_redirect_location:
            # Without its query, which may hold a token. It is not followed: the key would go to whatever host it names.
            location = self._redact(response.headers["location"].encode()).decode().partition("?")[0]
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

    def _redact(self, text: bytes) -> bytes:
        for secret, label in ((self._adapted.api_key, b"[key]"), (self._adapted.account_id, b"[account]")):
            if secret:
                text = text.replace(secret.encode(), label)
        return text

    def next_action(self, error: LlamaVisionError) -> RetryAction:
        """Decide what to do before the next attempt, or raise `error` where there is none."""
        if isinstance(error, LicenseNotAcceptedError) and self._may_accept:
            self._may_accept = False
            _logger.info("Accepting the license of %s at %s", self._request.model, self._config.provider.name)
            return RetryAction(accept_license=True)
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

    def _is_about_stream_options(self, error: LlamaVisionError) -> bool:
        # Once only: a field of that name in the user's extra_body or tools stays in the body.
        requested = self._stream and self._request.stream_usage and b'"stream_options"' in self._wire.body
        return requested and isinstance(error, InvalidRequestError) and "stream_options" in error.body


@lru_cache(maxsize=16)
def build_timeout(seconds: float | None) -> httpx.Timeout:
    """Make a timeout for connecting, reading and writing.

    Not for the pool: waiting for a free connection is waiting for one's own calls, not a failure of the provider.
    """
    return httpx.Timeout(seconds, pool=None)


@lru_cache(maxsize=64)
def parse_url(address: str) -> httpx.URL:
    """Parse a URL, cached.

    Raises:
        ConfigurationError: It is no URL, or has no host.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"The address can't be used: {error}") from error
    if not url.host:
        raise ConfigurationError(f"The address can't be used: {address!r} names no host.")
    return url


def _lowercase_headers(headers: httpx.Headers) -> dict[str, str]:
    """Copy headers into a dict: a look-up in httpx.Headers takes 4 us, and a decoder does half a dozen."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}

"""One call to a hosted model, without I/O: what is sent, what an answer means, and what to do after a failure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import httpx

from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.adaptation.prompted_tools import emulate_tools
from llama_vision.adaptation.validate import validate_request
from llama_vision.backends.http.reply_stream import ReplyStream
from llama_vision.backends.http.retry import RetryState, parse_retry_after
from llama_vision.core.errors import (
    ConfigurationError,
    InvalidRequestError,
    LicenseNotAcceptedError,
    LlamaVisionError,
    ModelNotFoundError,
    StatusError,
)
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.dialect import Dialect, WireRequest
from llama_vision.providers.credentials import resolve_account_id, resolve_api_key
from llama_vision.providers.provider import Provider
from llama_vision.version import __version__

_USER_AGENT = f"llama-vision/{__version__}"

_urls_without_stream_options: set[str] = set()
"""Addresses that answered `stream_options` with an error; they are not asked for usage in streams again."""


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """What all calls of one backend have in common."""

    provider: Provider
    dialect: Dialect
    base_url: str
    api_key: str | None = field(repr=False)
    account_id: str | None
    accept_license: bool
    timeout: httpx.Timeout
    max_retries: int
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RetryAction:
    """What to do before the call is made again.

    Attributes:
        delay: Seconds to wait.
        accept_license: Whether the license has to be accepted.

    """

    delay: float = 0.0
    accept_license: bool = False


class PreparedCall:
    """One call, checked and encoded once, however often it will be sent."""

    def __init__(self, settings: HttpConfig, request: ChatRequest, *, stream: bool) -> None:
        """Prepare a call.

        Raises:
            UnsupportedInputError: The provider can't express the request.
            ConfigurationError: The key or the account is missing, or can't be sent.

        """
        provider = settings.provider
        validate_request(provider, request)
        self._readable_tools = request.text_parsed_tools  # before they are put into words
        self._settings = settings
        self._stream = stream
        self._key = resolve_api_key(provider, settings.api_key)
        self._account = resolve_account_id(provider, settings.account_id)
        self._request = reorder_messages(provider, emulate_tools(provider, request))
        self.stop_strings = request.stop if provider.client_side_stop else ()
        if self.stop_strings:
            self._request = replace(self._request, stop=())
        if settings.base_url in _urls_without_stream_options:
            self._request = replace(self._request, stream_usage=False)
        self._wire = settings.dialect.encode(self._request, stream=stream)
        self._retries = RetryState(settings.max_retries)
        self._may_accept = settings.accept_license and provider.license is not None

    def build(self, client: httpx.Client | httpx.AsyncClient | None) -> httpx.Request:
        """Make the HTTP request.

        Args:
            client: A client of the user's own, whose settings count too; None for the shared ones, which have none.

        """
        return self._build(client, self._wire)

    def build_license_request(self, client: httpx.Client | httpx.AsyncClient | None) -> httpx.Request:
        """Make the HTTP request that accepts the model's license.

        Raises:
            ConfigurationError: The provider asks for no such thing.

        """
        agreement = self._settings.provider.license
        if agreement is None:
            raise ConfigurationError(f"{self._settings.provider.title} has no license to accept.")
        return self._build(
            client, WireRequest(agreement.path.replace("{model}", self._request.model), agreement.body)
        )

    def _build(self, client: httpx.Client | httpx.AsyncClient | None, wire: WireRequest) -> httpx.Request:
        headers = {
            "user-agent": _USER_AGENT,
            "content-type": "application/json",
            "accept": "text/event-stream" if self._stream else "application/json",
            **({"authorization": f"Bearer {self._key}"} if self._key else {}),
            **wire.headers,
            **self._settings.headers,
        }
        url = _parse_url(self._settings.base_url + wire.path.replace("{account}", self._account or ""))
        timeout = self._settings.timeout
        if client is not None:
            return client.build_request("POST", url, content=wire.body, headers=headers, timeout=timeout)
        # What a client would add takes it 20 us to find out.
        return httpx.Request(
            "POST",
            url,
            content=wire.body,
            headers={"accept-encoding": "gzip, deflate", **headers},
            extensions={"timeout": timeout.as_dict()},
        )

    def open_reply(self, response: httpx.Response) -> ReplyStream:
        """Begin to read an answer."""
        request = self._request
        decoder = self._settings.dialect.decoder(
            request.model, _lowercase_headers(response.headers), max_tokens=request.sampling.max_tokens
        )
        price = self._settings.provider.model_info(request.model).price
        secrets = tuple(filter(None, (self._key, self._account)))
        return ReplyStream(
            decoder,
            streamed=self._stream,
            price=price,
            stops=self.stop_strings,
            tools=self._readable_tools,
            redacted=secrets,
        )

    def error_from_response(self, response: httpx.Response) -> StatusError:
        """Make the error of an answer, without the key or the account should the provider have repeated them."""
        body = response.content
        for secret, shown in ((self._key, b"[key]"), (self._account, b"[account]")):
            if secret:
                body = body.replace(secret.encode(), shown)
        error = self._settings.dialect.errors.parse(response.status_code, body, response.headers)
        error.retry_after = parse_retry_after(response.headers.get("retry-after"))
        retired = self._settings.provider.model_info(self._request.model).deprecation
        if retired and isinstance(error, (ModelNotFoundError, InvalidRequestError)):
            error.args = (f"{error.args[0]} {retired}",)
        return error

    def next_action(self, error: LlamaVisionError) -> RetryAction:
        """Decide what follows a failure.

        Args:
            error: The failure.

        Returns:
            What to do before the call is made again.

        Raises:
            LlamaVisionError: `error` itself, where it is not made again.

        """
        if isinstance(error, LicenseNotAcceptedError) and self._may_accept:
            self._may_accept = False
            return RetryAction(accept_license=True)
        if self._is_about_stream_options(error):
            _urls_without_stream_options.add(self._settings.base_url)
            self._request = replace(self._request, stream_usage=False)
            self._wire = self._settings.dialect.encode(self._request, stream=True)
            return RetryAction()
        return RetryAction(delay=self._retries.next_delay(error))

    def _is_about_stream_options(self, error: LlamaVisionError) -> bool:
        # Once only: a field of that name in the user's extra_body or tools stays in the body.
        asked = self._stream and self._request.stream_usage and b'"stream_options"' in self._wire.body
        return asked and isinstance(error, InvalidRequestError) and "stream_options" in error.body


@lru_cache(maxsize=64)
def _parse_url(address: str) -> httpx.URL:
    """Take an address apart once."""
    url = httpx.URL(address)
    if not url.host:
        raise ConfigurationError(f"The address can't be used: {address!r} names no host.")
    return url


def _lowercase_headers(headers: httpx.Headers) -> dict[str, str]:
    """Give headers as a dictionary: looking for one in httpx's own takes 4 us, and a decoder looks for half a dozen."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}

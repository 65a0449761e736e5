"""One call to a hosted model, without I/O: what is sent, what an answer means, and what to do after a failure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import httpx

from llama_vision.backends.reading import ReplyReader
from llama_vision.backends.retry import Retries, parse_retry_after
from llama_vision.core.errors import (
    ConfigurationError,
    InvalidRequestError,
    LicenceNotAcceptedError,
    LlamaVisionError,
    ModelNotFoundError,
    StatusError,
)
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.dialect import Dialect, WireCall
from llama_vision.dialects.error_bodies import status_error
from llama_vision.providers.checks import check_request
from llama_vision.providers.keys import checked_account, checked_key
from llama_vision.providers.record import Provider
from llama_vision.providers.shaping import shaped
from llama_vision.providers.tool_words import in_words
from llama_vision.version import __version__

_USER_AGENT = f"llama-vision/{__version__}"

_refuse_stream_options: set[str] = set()
"""Addresses that answered `stream_options` with an error; they are not asked for usage in streams again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all calls of one backend have in common."""

    provider: Provider
    dialect: Dialect
    base_url: str
    api_key: str | None = field(repr=False)
    account_id: str | None
    accept_licence: bool
    timeout: httpx.Timeout
    max_retries: int
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NextStep:
    """What to do before the call is made again.

    Attributes:
        delay: Seconds to wait.
        accept_licence: Whether the licence has to be accepted.

    """

    delay: float = 0.0
    accept_licence: bool = False


class Call:
    """One call, checked and encoded once, however often it will be sent."""

    def __init__(self, settings: Settings, request: ChatRequest, *, stream: bool) -> None:
        """Prepare a call.

        Raises:
            UnsupportedInputError: The provider can't express the request.
            ConfigurationError: The key or the account is missing, or can't be sent.

        """
        provider = settings.provider
        check_request(provider, request)
        self._readable_tools = request.readable_tools  # before they are put into words
        self._settings = settings
        self._stream = stream
        self._key = checked_key(provider, settings.api_key)
        self._account = checked_account(provider, settings.account_id)
        self._request = shaped(provider, in_words(provider, request))
        self.stops = request.stop if provider.stops_here else ()
        if self.stops:
            self._request = replace(self._request, stop=())
        if settings.base_url in _refuse_stream_options:
            self._request = replace(self._request, stream_usage=False)
        self._wire = settings.dialect.encode(self._request, stream=stream)
        self._retries = Retries(settings.max_retries)
        self._may_accept = settings.accept_licence and provider.licence is not None

    def build(self, client: httpx.Client | httpx.AsyncClient | None) -> httpx.Request:
        """Make the HTTP request.

        Args:
            client: A client of the user's own, whose settings count too; None for the shared ones, which have none.

        """
        return self._build(client, self._wire)

    def build_agreement(self, client: httpx.Client | httpx.AsyncClient | None) -> httpx.Request:
        """Make the HTTP request that accepts the model's licence.

        Raises:
            ConfigurationError: The provider asks for no such thing.

        """
        licence = self._settings.provider.licence
        if licence is None:
            raise ConfigurationError(f"{self._settings.provider.title} has no licence to accept.")
        return self._build(
            client, WireCall(licence.path.replace("{model}", self._request.model), licence.body)
        )

    def _build(self, client: httpx.Client | httpx.AsyncClient | None, wire: WireCall) -> httpx.Request:
        headers = {
            "user-agent": _USER_AGENT,
            "content-type": "application/json",
            "accept": "text/event-stream" if self._stream else "application/json",
            **({"authorization": f"Bearer {self._key}"} if self._key else {}),
            **wire.headers,
            **self._settings.headers,
        }
        url = _url(self._settings.base_url + wire.path.replace("{account}", self._account or ""))
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

    def reader(self, response: httpx.Response) -> ReplyReader:
        """Begin to read an answer."""
        request = self._request
        decoder = self._settings.dialect.decoder(
            request.model, _plain(response.headers), max_tokens=request.sampling.max_tokens
        )
        price = self._settings.provider.model_info(request.model).price
        secrets = tuple(filter(None, (self._key, self._account)))
        return ReplyReader(
            decoder,
            streamed=self._stream,
            price=price,
            stops=self.stops,
            tools=self._readable_tools,
            secrets=secrets,
        )

    def error(self, response: httpx.Response) -> StatusError:
        """Make the error of an answer, without the key or the account should the provider have repeated them."""
        body = response.content
        for secret, shown in ((self._key, b"[key]"), (self._account, b"[account]")):
            if secret:
                body = body.replace(secret.encode(), shown)
        error = status_error(response.status_code, body, response.headers)
        error.retry_after = parse_retry_after(response.headers.get("retry-after"))
        retired = self._settings.provider.model_info(self._request.model).retired
        if retired and isinstance(error, (ModelNotFoundError, InvalidRequestError)):
            error.args = (f"{error.args[0]} {retired}",)
        return error

    def step_after(self, error: LlamaVisionError) -> NextStep:
        """Decide what follows a failure.

        Args:
            error: The failure.

        Returns:
            What to do before the call is made again.

        Raises:
            LlamaVisionError: `error` itself, where it is not made again.

        """
        if isinstance(error, LicenceNotAcceptedError) and self._may_accept:
            self._may_accept = False
            return NextStep(accept_licence=True)
        if self._is_about_stream_options(error):
            _refuse_stream_options.add(self._settings.base_url)
            self._request = replace(self._request, stream_usage=False)
            self._wire = self._settings.dialect.encode(self._request, stream=True)
            return NextStep()
        return NextStep(delay=self._retries.delay_after(error))

    def _is_about_stream_options(self, error: LlamaVisionError) -> bool:
        # Once only: a field of that name in the user's extra_body or tools stays in the body.
        asked = self._stream and self._request.stream_usage and b'"stream_options"' in self._wire.body
        return asked and isinstance(error, InvalidRequestError) and "stream_options" in error.body


@lru_cache(maxsize=64)
def _url(address: str) -> httpx.URL:
    """Take an address apart once."""
    url = httpx.URL(address)
    if not url.host:
        raise ConfigurationError(f"The address can't be used: {address!r} names no host.")
    return url


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Give headers as a dictionary: looking for one in httpx's own takes 4 us, and a decoder looks for half a dozen."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}

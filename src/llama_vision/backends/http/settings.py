"""Checks what users set about connections, and parses it. It loads no more than httpx."""

import re
from collections.abc import Mapping
from functools import lru_cache

import httpx

from llama_vision.core.errors import ConfigurationError
from llama_vision.images.fetch_policy import redact_url

_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_MAX_PORT = 65535
_MAX_SECONDS = 2_000_000  # sockets wait for 2 ** 31 milliseconds at most


def build_timeout(timeout: float | httpx.Timeout | None) -> httpx.Timeout:
    """Make a timeout for connecting, reading and writing.

    Not for the pool: waiting for a free connection is waiting for one's own calls, not a failure of the provider.

    Raises:
        ConfigurationError: It, or a part of it, is no number of seconds that can be waited for.
    """
    if isinstance(timeout, httpx.Timeout):
        for phase, seconds in timeout.as_dict().items():
            _check_seconds(f"timeout's {phase}", seconds)
        return timeout
    _check_seconds("timeout", timeout)
    return _timeout_of(timeout)


@lru_cache(maxsize=16)
def _timeout_of(seconds: float | None) -> httpx.Timeout:
    return httpx.Timeout(seconds, pool=None)


def check_settings(
    *,
    timeout: float | httpx.Timeout | None,
    deadline: float | None,
    max_retries: int,
    headers: Mapping[str, str] | None = None,
    base_url: str | None = None,
) -> None:
    """Check settings that are refused when they are made, as none would work in any call.

    Raises:
        ConfigurationError: One of them can't be; the text names it, and quotes no header, which may hold a key.
    """
    build_timeout(timeout)
    _check_seconds("deadline", deadline)
    if not isinstance(max_retries, int) or max_retries < 0:  # pyright: ignore[reportUnnecessaryIsInstance] - of a call's arguments
        raise ConfigurationError(f"max_retries is {max_retries!r}: give 0 or more.")
    for name, value in (headers or {}).items():
        if not (
            isinstance(value, str)  # pyright: ignore[reportUnnecessaryIsInstance] - of a call's arguments
            and _HEADER_NAME.fullmatch(name)
            and _HEADER_VALUE.fullmatch(value)
        ):
            raise ConfigurationError(
                f"The header {name!r} holds a line break, a space or a letter that no header can have there."
            )
    if base_url is not None:
        parse_base_url(base_url)


def _check_seconds(name: str, seconds: object) -> None:
    """Check a time that can be waited for.

    Raises:
        ConfigurationError: It is none; the text says what is possible.
    """
    possible = (
        isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= _MAX_SECONDS
    )
    if seconds is not None and not possible:
        raise ConfigurationError(
            f"{name} is {seconds!r}: give a number of seconds above 0 and at most {_MAX_SECONDS}, "
            "or None for no limit."
        )


@lru_cache(maxsize=64)
def parse_base_url(address: str) -> tuple[str, str]:
    """Split a base URL into what is before the path of every call, and the query that follows it.

    Raises:
        ConfigurationError: It can't be used, or holds a password. The text does not quote that.
    """
    if not address.lower().startswith(("http://", "https://")):
        raise ConfigurationError(
            f"base_url has to begin with http:// or https://, and is {redact_url(address)!r}."
        )
    url = parse_url(address)
    if url.userinfo:
        raise ConfigurationError(
            "base_url holds a user name or password, which would show wherever it does. Pass "
            "default_headers={'Authorization': 'Basic ...'}, or api_key=..., and leave it out of the address."
        )
    base, _, query = address.partition("#")[0].partition("?")
    return base.rstrip("/"), query


@lru_cache(maxsize=64)
def parse_url(address: str) -> httpx.URL:
    """Parse a URL, cached.

    Raises:
        ConfigurationError: It is no URL, or no socket can be opened to its host and port.
    """
    try:
        url = httpx.URL(address)
        host = url.host
        url.raw_host.decode("ascii").encode("idna")  # as sockets do: it refuses what no name server knows
    except (httpx.InvalidURL, UnicodeError) as error:
        # Not what it says: `user:pass/word@host` is an invalid port that is part of a password.
        if "@" in address:
            raise ConfigurationError("The address can't be used: it holds @, and is no valid URL.") from None
        raise ConfigurationError(f"The address can't be used: {error}") from error
    if not host:
        raise ConfigurationError(f"The address can't be used: {redact_url(address)!r} names no host.")
    if url.port is not None and not 0 < url.port <= _MAX_PORT:
        raise ConfigurationError(f"The address can't be used: {url.port} is no port.")
    return url

"""The address of a provider: the user's, else that of the environment, else the record's."""

import os
from urllib.parse import urlsplit

from llama_vision.core.errors import ConfigurationError
from llama_vision.providers.provider import Provider


def resolve_base_url(provider: Provider, base_url: str | None) -> str | None:
    """Return the address of a call; None for the model on this machine.

    Where it is a host and a port alone, the record's `base_path` follows.

    Args:
        provider: The record.
        base_url: The user's.

    Raises:
        ConfigurationError: There is none and the provider needs one, there is one and the provider takes none, or it is
            malformed.
    """
    try:
        return _resolve(provider, base_url)
    except ConfigurationError as error:
        raise error.with_context(provider.name) from None


def _resolve(provider: Provider, base_url: str | None) -> str | None:
    if provider.dialect is None:
        if base_url:
            raise ConfigurationError(
                f"{provider.title} runs on this machine and has no address: leave base_url out, or use "
                "provider='openai-compatible' for a server."
            )
        return None
    address = base_url or _address_from_environment(provider) or provider.base_url
    if address is None:
        raise ConfigurationError(
            f"{provider.title} needs base_url=..., everything before /chat/completions, "
            f"such as {provider.base_url_example}."
        )
    if not address.lower().startswith(("http://", "https://")):
        raise ConfigurationError(f"base_url has to begin with http:// or https://, and is {address!r}.")
    address = address.rstrip("/")
    end = provider.dialect.path.rpartition("}")[2]
    if end and address.endswith(end):
        raise ConfigurationError(
            f"base_url is everything before {end}, which is added to it: {address.removesuffix(end)!r}."
        )
    # Without a path there is one slash less than in `http://host/v1`.
    return address + provider.base_path if address.count("/") == len("//") else address


def _address_from_environment(provider: Provider) -> str | None:
    """Read an address as Ollama does: the scheme and the port may be left out, and 0.0.0.0 is where a server listens.

    https://docs.ollama.com/faq#how-can-i-expose-ollama-on-my-network
    """
    value = next(filter(None, (os.environ.get(name, "").strip() for name in provider.base_url_env)), "")
    if not value or provider.base_url is None or "://" in value:
        return value.replace("://0.0.0.0", "://localhost") or None
    default = urlsplit(provider.base_url)
    host, colon, rest = value.partition(":")
    host = "localhost" if host in ("", "0.0.0.0") else host  # noqa: S104 - it is not bound to
    return f"{default.scheme}://{host}{colon}{rest}" if colon else f"{default.scheme}://{host}:{default.port}"

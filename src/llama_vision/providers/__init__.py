"""One record per provider, and the registry of them."""

import difflib

from llama_vision.core.errors import UnknownProviderError
from llama_vision.providers.hosted import HOSTED
from llama_vision.providers.local import LOCAL
from llama_vision.providers.provider import (
    UNBOUNDED,
    BatchApi,
    ImageConstraints,
    LicenseAgreement,
    Provider,
    Range,
)
from llama_vision.providers.servers import OPENAI_COMPATIBLE, SERVERS

__all__ = [
    "PROVIDERS",
    "UNBOUNDED",
    "BatchApi",
    "ImageConstraints",
    "LicenseAgreement",
    "Provider",
    "Range",
    "find_provider",
]

PROVIDERS: dict[str, Provider] = {
    record.name: record for record in (LOCAL, *HOSTED, *SERVERS, OPENAI_COMPATIBLE)
}
"""All records by name; one that is added here can be used by its name everywhere."""


def find_provider(provider: str | Provider) -> Provider:
    """Find a provider's record.

    Args:
        provider: A name, or a record, which is returned as it is.

    Returns:
        The record.

    Raises:
        UnknownProviderError: There is none of this name; the text lists the known ones.
    """
    if isinstance(provider, Provider):
        return provider
    try:
        return PROVIDERS[provider]
    except KeyError:
        close = difflib.get_close_matches(provider, PROVIDERS, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise UnknownProviderError(
            f"There is no provider {provider!r}. {hint}Known are: {', '.join(PROVIDERS)}. "
            "For any other endpoint use 'openai-compatible' with its base_url, or pass a Provider record."
        ) from None

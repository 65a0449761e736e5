"""Who speaks what, where: one record per provider, and this dictionary of them."""

from llama_vision.core.errors import UnknownProviderError
from llama_vision.providers.aigateway import AIGATEWAY
from llama_vision.providers.aimlapi import AIMLAPI
from llama_vision.providers.cloudflare import CLOUDFLARE, CLOUDFLARE_OPENAI
from llama_vision.providers.deepinfra import DEEPINFRA
from llama_vision.providers.hosted import HOSTED
from llama_vision.providers.local import LOCAL
from llama_vision.providers.openai_compatible import OPENAI_COMPATIBLE
from llama_vision.providers.provider import UNBOUNDED, ImageConstraints, LicenseAgreement, Provider, Range
from llama_vision.providers.servers import SERVERS

__all__ = [
    "PROVIDERS",
    "UNBOUNDED",
    "ImageConstraints",
    "LicenseAgreement",
    "Provider",
    "Range",
    "find_provider",
]

_RECORDS = (
    *(LOCAL, DEEPINFRA, AIMLAPI, AIGATEWAY, CLOUDFLARE, CLOUDFLARE_OPENAI),
    *HOSTED,
    *SERVERS,
    OPENAI_COMPATIBLE,
)

PROVIDERS: dict[str, Provider] = {record.name: record for record in _RECORDS}
"""All records by name. One added here is found by its name everywhere."""


def find_provider(provider: str | Provider) -> Provider:
    """Find a provider's record.

    Args:
        provider: A name, or a record of the user's own, which is returned as it is.

    Returns:
        The record.

    Raises:
        UnknownProviderError: There is none of this name.

    """
    if isinstance(provider, Provider):
        return provider
    try:
        return PROVIDERS[provider]
    except KeyError:
        raise UnknownProviderError(
            f"There is no provider {provider!r}. Known are: {', '.join(PROVIDERS)}. "
            "For any other endpoint use 'openai-compatible' with its base_url, or pass a Provider record."
        ) from None

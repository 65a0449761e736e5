"""Who speaks what, where: one record per provider, and this dictionary of them."""

from llama_vision.core.errors import UnknownProviderError
from llama_vision.providers.deepinfra import DEEPINFRA
from llama_vision.providers.local import LOCAL
from llama_vision.providers.openai_compatible import OPENAI_COMPATIBLE
from llama_vision.providers.record import ImageRules, Provider, Range

__all__ = ["PROVIDERS", "ImageRules", "Provider", "Range", "find_provider"]

PROVIDERS: dict[str, Provider] = {record.name: record for record in (LOCAL, DEEPINFRA, OPENAI_COMPATIBLE)}


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

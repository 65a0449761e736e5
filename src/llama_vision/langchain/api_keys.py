"""API keys bound to a provider, so that none is sent to another company where the provider is changed later."""

from pydantic import SecretStr
from typing_extensions import override

from llama_vision.providers.credentials import find_api_key
from llama_vision.providers.provider import Provider


class ProviderKey(SecretStr):
    """An API key bound to the company it belongs to."""

    def __init__(self, key: str, provider: Provider) -> None:
        super().__init__(key)
        self._variables = provider.key_env  # the same at all endpoints of one company

    def belongs_to(self, provider: Provider) -> bool:
        """Whether this is the provider's key: `configurable_fields` copies all fields to a model of another provider."""
        return self._variables == provider.key_env

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other == SecretStr(self.get_secret_value())

    @override
    def __hash__(self) -> int:
        return super().__hash__()


def key_from_environment(provider: Provider) -> ProviderKey | None:
    """Read the provider's key from the environment."""
    key = find_api_key(provider)
    return ProviderKey(key, provider) if key else None


def resolve_key(key: SecretStr | None, provider: Provider) -> str | None:
    """Return the key for a call; None, so that the environment is read, if it is missing or another company's."""
    if key is None or (isinstance(key, ProviderKey) and not key.belongs_to(provider)):
        return None
    return key.get_secret_value()

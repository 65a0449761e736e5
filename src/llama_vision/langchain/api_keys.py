"""API keys bound to a provider, so that none is sent to another company where the provider is changed later."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import SecretStr
from typing_extensions import override

from llama_vision.providers.credentials import ApiKey, find_api_key
from llama_vision.providers.provider import Provider


class ProviderKey(SecretStr):
    """An API key bound to the company it belongs to."""

    def __init__(self, key: str, provider: Provider) -> None:
        super().__init__(key)
        self.variables = provider.key_env  # the same at all endpoints of one company

    def belongs_to(self, provider: Provider) -> bool:
        """Whether this is the provider's key."""
        return self.variables == provider.key_env

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other == SecretStr(self.get_secret_value())

    @override
    def __hash__(self) -> int:
        return super().__hash__()


@dataclass(frozen=True)
class ProviderKeyFunction:
    """A function that returns API keys, bound to the company that they belong to."""

    function: Callable[[], Any]
    variables: tuple[str, ...]

    def belongs_to(self, provider: Provider) -> bool:
        """Whether the keys are the provider's."""
        return self.variables == provider.key_env

    def __call__(self) -> Any:
        """Call the function."""
        return self.function()


KeyField: TypeAlias = SecretStr | str | Callable[[], Any] | None


def bind_key(key: KeyField, provider: Provider) -> KeyField:
    """Bind a key to the provider that it was given for: `configurable_fields` copies all fields to a model of another."""
    if key is None or isinstance(key, ProviderKey | ProviderKeyFunction):
        return key
    if isinstance(key, SecretStr | str):
        return ProviderKey(key.get_secret_value() if isinstance(key, SecretStr) else key, provider)
    return ProviderKeyFunction(key, provider.key_env)


def key_from_environment(provider: Provider) -> ProviderKey | None:
    """Read the provider's key from the environment."""
    key = find_api_key(provider)
    return ProviderKey(key, provider) if key else None


def resolve_key(key: KeyField, provider: Provider) -> ApiKey | None:
    """Return the key for a call; None, so that the environment is read, if it is missing or another company's."""
    if isinstance(key, ProviderKey | ProviderKeyFunction) and not key.belongs_to(provider):
        return None
    if isinstance(key, ProviderKeyFunction):
        return key.function
    return key.get_secret_value() if isinstance(key, SecretStr) else key

"""Backends: hosted endpoints over HTTP, and the model on this machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_vision.core.backend import Backend
from llama_vision.core.errors import ConfigurationError
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.base_url import resolve_base_url
from llama_vision.providers.credentials import ApiKey, resolve_account_id
from llama_vision.providers.provider import Provider

if TYPE_CHECKING:
    import httpx

__all__ = ["DEFAULT_MAX_RETRIES", "DEFAULT_TIMEOUT_S", "create_backend"]

DEFAULT_TIMEOUT_S = 120.0
"""Seconds without a byte before a call fails: the reply to a large image may take long to begin."""

DEFAULT_MAX_RETRIES = 2
"""The maximum number of retries of a call that failed for a transient reason."""


def create_backend(
    provider: Provider,
    *,
    api_key: ApiKey | None = None,
    account_id: str | None = None,
    accept_license: bool = False,
    base_url: str | None = None,
    timeout: "float | httpx.Timeout | None" = DEFAULT_TIMEOUT_S,
    deadline: float | None = None,
    max_retries: int = DEFAULT_MAX_RETRIES,
    headers: Mapping[str, str] | None = None,
    images: ImageSettings | None = None,
    local: Mapping[str, Any] | None = None,
    http_client: "httpx.Client | None" = None,
    http_async_client: "httpx.AsyncClient | None" = None,
) -> Backend:
    """Create the backend of a provider. It opens no connection and loads no model yet.

    Args:
        provider: The record.
        api_key: The key, or a function that returns it, which may be a coroutine function; None looks into the
            environment at each call.
        account_id: The account at a provider whose URLs contain one.
        accept_license: Whether to accept the model's license on behalf of the account, where it is required.
        base_url: In place of that of the environment and of the record.
        timeout: Seconds without a byte before a call fails; None waits for ever. The head of a response, a body, and
            the time between two payloads of a stream may take twice as long in all, however they arrive.
        deadline: Seconds for a whole call, its images, retries and a stream to its end included; None sets no such limit.
        max_retries: The maximum number of retries of a call that failed for a transient reason.
        headers: Sent with every call.
        images: How images are prepared.
        local: How a model runs on this machine: the fields of `LocalSettings`, by name.
        http_client: Used for synchronous calls in place of the shared one.
        http_async_client: Used for asynchronous calls in place of the shared ones.

    Returns:
        The backend.

    Raises:
        ConfigurationError: The provider needs a base URL and there is none, it has none and there is one, or it is
            malformed; or `local` has an unknown field, a value out of range, or is given for a hosted provider; or a
            time, a number of retries or a header can't be.
    """
    if account_id is not None:
        resolve_account_id(provider, account_id)
    if base_url and provider.dialect is not None:
        from llama_vision.backends.http.settings import parse_base_url  # noqa: PLC0415 - loads httpx

        try:
            parse_base_url(base_url)  # whose errors quote no password
        except ConfigurationError as error:
            raise error.with_context(provider.name)  # noqa: B904 - the same error
    address = resolve_base_url(provider, base_url)
    if provider.dialect is None or address is None:
        from llama_vision.backends.local import LocalBackend, parse_local_settings  # noqa: PLC0415 - loaded late

        return LocalBackend(provider, images, parse_local_settings(local or {}), deadline=deadline)
    if local:
        raise ConfigurationError(
            f"{', '.join(local)}: that is for models on this machine, and {provider.title} runs elsewhere."
        ).with_context(provider.name)

    from llama_vision.backends.http.backend import HttpBackend  # noqa: PLC0415 - loads httpx, which `local` does not need
    from llama_vision.backends.http.call import HttpConfig  # noqa: PLC0415 - as above
    from llama_vision.backends.http.settings import build_timeout, check_settings, parse_base_url  # noqa: PLC0415 - as above

    try:
        check_settings(timeout=timeout, deadline=deadline, max_retries=max_retries, headers=headers)
        base, query = parse_base_url(address)
        config = HttpConfig(
            provider=provider,
            dialect=provider.dialect,
            base_url=base,
            query=query,
            api_key=api_key,
            account_id=account_id,
            accept_license=accept_license,
            timeout=build_timeout(timeout),
            deadline=deadline,
            max_retries=max_retries,
            headers=dict(headers or {}),
            images=images or ImageSettings(),
        )
    except ConfigurationError as error:
        raise error.with_context(provider.name)  # noqa: B904 - the same error
    return HttpBackend(config, client=http_client, async_client=http_async_client)

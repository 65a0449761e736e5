"""Backends: hosted endpoints over HTTP, and the model on this machine."""

from collections.abc import Hashable, Mapping
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from llama_vision.backends.failover import FailoverBackend, Member
from llama_vision.backends.limits import CallCounters, LimitedBackend, Limits
from llama_vision.core.backend import Backend
from llama_vision.core.errors import ConfigurationError
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.base_url import resolve_base_url
from llama_vision.providers.credentials import ApiKey, find_api_key, resolve_account_id
from llama_vision.providers.provider import Provider
from llama_vision.providers.route import Route, Target

if TYPE_CHECKING:
    import httpx

__all__ = [
    "DEFAULT_MAX_RETRIES",
    "DEFAULT_TIMEOUT_S",
    "CallCounters",
    "Limits",
    "create_backend",
    "is_traced",
]

DEFAULT_TIMEOUT_S = 120.0
"""Seconds without a byte before a call fails: the reply to a large image may take long to begin."""

DEFAULT_MAX_RETRIES = 2
"""The maximum number of retries of a call that failed for a transient reason."""


def create_backend(
    provider: Provider | Route,
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
    limits: Limits | None = None,
    counters: CallCounters | None = None,
) -> Backend:
    """Create the backend of a provider, or of several. It opens no connection and loads no model yet.

    Args:
        provider: The record, or a route of several.
        api_key: The key, or a function that returns it, which may be a coroutine function; None looks into the
            environment at each call. Of a route it is that of the first provider; the others' are in the environment.
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
        limits: What calls may cost, and how many there may be.
        counters: Of calls that share the limits with those of other backends; None counts this one's alone.

    Returns:
        The backend.

    Raises:
        ConfigurationError: The provider needs a base URL and there is none, it has none and there is one, or it is
            malformed; or `local` has an unknown field, a value out of range, or is given for a hosted provider; or a
            time, a number of retries or a header can't be.
    """
    route = provider if isinstance(provider, Route) else None
    targets = (Target(provider),) if isinstance(provider, Provider) else provider.all_targets
    if route is not None:
        _check_route(route, account_id=account_id, base_url=base_url, headers=headers, local=local)
    counters = counters or CallCounters()

    def create(target: Target, deadline: float | None) -> Backend:
        record = target.record
        return _create_single(
            record,
            api_key=api_key if target is targets[0] else None,
            account_id=account_id if route is None or record.account_env else None,
            accept_license=accept_license,
            base_url=target.base_url or base_url,
            timeout=timeout,
            deadline=deadline,
            # A route retries once all have failed: the next provider is there sooner than this one.
            max_retries=max_retries if route is None else 0,
            headers=headers,
            images=images,
            local=local if route is None or record.dialect is None else None,
            http_client=http_client,
            http_async_client=http_async_client,
        )

    def limited(target: Target, deadline: float | None) -> Backend:
        if not limits:
            return create(target, deadline)
        return LimitedBackend(target.record, partial(create, target), limits, counters, deadline)

    backends = [limited(target, deadline) for target in targets]  # what can't be is refused now
    if route is None:
        return _trace(backends[0], targets[0], base_url)
    members = [
        Member(target, partial(limited, target), _identity(target, api_key if target is targets[0] else None))
        for target in targets
    ]
    backend = FailoverBackend(route, members, max_retries=max_retries, deadline=deadline)
    return _trace(backend, targets[0], None)


@cache
def _find_telemetry() -> ModuleType | None:
    try:
        from llama_vision.backends import telemetry  # noqa: PLC0415 - needs the extra `otel`
    except ImportError:
        return None
    return telemetry


def is_traced() -> bool:
    """Look whether the app has set OpenTelemetry up.

    Returns:
        Whether calls are traced.
    """
    telemetry = _find_telemetry()
    return telemetry is not None and telemetry.is_set_up()


def _trace(backend: Backend, target: Target, base_url: str | None) -> Backend:
    """Trace a backend, where the app has set OpenTelemetry up."""
    telemetry = _find_telemetry()
    if telemetry is None or not telemetry.is_set_up():
        return backend
    address = resolve_base_url(target.record, target.base_url or base_url)
    return telemetry.TracedBackend(backend, telemetry.Endpoint(target.record.name, address))


def _check_route(
    route: Route,
    *,
    account_id: str | None,
    base_url: str | None,
    headers: Mapping[str, str] | None,
    local: Mapping[str, Any] | None,
) -> None:
    """Refuse what belongs to one provider and would go to another one, or to none."""
    records = [target.record for target in route.all_targets]
    if base_url is not None:
        raise ConfigurationError("Of several providers each has an address: Target(provider, base_url=...).")
    if account_id is not None and not any(record.account_env for record in records):
        raise ConfigurationError("None of the providers has an account_id; leave it out.")
    if local and all(record.dialect is not None for record in records):
        raise ConfigurationError(f"{', '.join(local)}: that is for models on this machine, and none is here.")
    keys = {record.key_header.lower() for record in records}
    if named := sorted(keys & {name.lower() for name in headers or ()}):
        raise ConfigurationError(
            f"The header {named[0]} would be sent to all providers. Set each one's key in its environment variable."
        )


def _identity(target: Target, api_key: ApiKey | None) -> Hashable:
    """Return what has limits and failures of its own at a provider: an address and a key, which is not kept."""
    key = api_key or find_api_key(target.record)
    return target.record.name, target.base_url or target.record.base_url, hash(key)


def _create_single(
    provider: Provider,
    *,
    api_key: ApiKey | None,
    account_id: str | None,
    accept_license: bool,
    base_url: str | None,
    timeout: "float | httpx.Timeout | None",
    deadline: float | None,
    max_retries: int,
    headers: Mapping[str, str] | None,
    images: ImageSettings | None,
    local: Mapping[str, Any] | None,
    http_client: "httpx.Client | None",
    http_async_client: "httpx.AsyncClient | None",
) -> Backend:
    """Create the backend of one provider, without limits; see `create_backend`."""
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

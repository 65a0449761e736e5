"""What the chat models of both adapters share: pydantic fields, and the backend that these describe."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

import httpx
from pydantic import BaseModel, Field, InstanceOf, SecretStr, model_validator
from typing_extensions import override

from llama_vision.backends import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_S, create_backend, is_traced
from llama_vision.backends.argument_names import resolve_arguments
from llama_vision.backends.http.settings import check_settings
from llama_vision.backends.limits import CallCounters, Limits
from llama_vision.core.backend import Backend, CloseMixin
from llama_vision.core.errors import ConfigurationError, MissingKeyError
from llama_vision.core.json_types import as_mapping
from llama_vision.core.request import DEFAULT_MAX_TOKENS
from llama_vision.images.settings import DOCUMENT_MAX_PAGES, OverflowPolicy, build_image_settings
from llama_vision.providers.credentials import ApiKey, find_api_key
from llama_vision.providers.defaults import default_provider
from llama_vision.providers.provider import Provider
from llama_vision.providers.route import Route, Target

_FIELDS_OF_A_CALL = (
    *("timeout", "deadline", "max_retries"),
    *("image_max_pixels", "image_format", "image_quality", "image_policy"),
    *("image_allowed_hosts", "image_private_networks", "document_max_pages", "document_text"),
)
BACKEND_OPTIONS = frozenset({*_FIELDS_OF_A_CALL, "extra_headers"})
"""Arguments of a call that its backend takes: they override the fields, and are no part of the request."""

_backend_fields = itemgetter(
    *_FIELDS_OF_A_CALL,
    *("account_id", "accept_license", "local_settings", "http_client", "http_async_client"),
    *("max_cost_usd", "requests_per_minute", "max_concurrency"),
)

_NO_OPTIONS: Mapping[str, Any] = {}

if TYPE_CHECKING:
    ApiKeyField: TypeAlias = SecretStr | str | Callable[[], str] | Callable[[], Awaitable[str]] | None
    StopField: TypeAlias = Sequence[str] | str | None
else:
    ApiKeyField = SecretStr | Callable[[], str] | Callable[[], Awaitable[str]] | None
    StopField = list[str] | None
# For type checkers these are what a constructor takes, at runtime what it makes of it.


class _LastBackend:
    """What the last call of a model was made with, and its backend. Pickles and deep copies begin without."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: tuple[tuple[Any, ...], Backend] | None = None

    @override
    def __reduce__(self) -> tuple[type["_LastBackend"], tuple[()]]:
        return _LastBackend, ()


class BackendFields(CloseMixin, BaseModel):
    """Base of the adapters' classes, which document the fields."""

    _key_field: ClassVar[str] = "api_key"
    # Where options of each call go that have no field, and fields of the provider's own.
    _options_field: ClassVar[str] = "extra_body"
    # What the pickle of an instance held no more; a private attribute would replace LangChain's `model_post_init`.
    _left_out: ClassVar[tuple[str, ...]] = ()

    provider: (
        str | InstanceOf[Provider] | InstanceOf[Route] | list[str | InstanceOf[Provider] | InstanceOf[Target]]
    ) = Field(default_factory=default_provider)
    # Half of a Cloudflare credential: copies and pickles keep it, nothing shows it.
    account_id: str | None = Field(default=None, repr=False)
    accept_license: bool = False
    temperature: float | None = None
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    timeout: float | InstanceOf[httpx.Timeout] | None = DEFAULT_TIMEOUT_S
    deadline: float | None = None
    max_retries: int = DEFAULT_MAX_RETRIES
    text_tool_calls: bool | None = None
    image_max_pixels: int | None = None
    image_format: Literal["auto", "jpeg", "png"] = "auto"
    image_quality: int = 85
    image_policy: OverflowPolicy = "error"
    image_allowed_hosts: list[str] | None = None
    image_private_networks: bool = False
    document_max_pages: int = DOCUMENT_MAX_PAGES
    document_text: bool = True
    local_settings: dict[str, Any] | None = None
    max_cost_usd: float | None = None
    requests_per_minute: int | None = None
    max_concurrency: int | None = None
    # Headers may hold keys, so they are left out of repr and dumps.
    default_headers: dict[str, str] | None = Field(default=None, repr=False, exclude=True)
    http_client: InstanceOf[httpx.Client] | None = Field(default=None, repr=False, exclude=True)
    http_async_client: InstanceOf[httpx.AsyncClient] | None = Field(default=None, repr=False, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _choose_provider(cls, values: Any) -> Any:
        """Take the names of other classes, and an address without a provider for that of an OpenAI-compatible endpoint."""
        fields = resolve_arguments(values, _argument_names(cls), cls._options_field)
        address = fields.get("base_url") or fields.get("api_base")
        return fields if "provider" in fields else {"provider": default_provider(address), **fields}

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Leave keys and connections out of pickles."""
        hidden = (self._key_field, "default_headers", "http_client", "http_async_client")
        # Of a copy: LlamaIndex deletes from the instance what can't be pickled.
        bare = self.model_copy(update=dict.fromkeys(hidden))
        left_out = tuple(name for name in hidden if getattr(self, name) is not None)
        vars(bare)["_left_out"] = left_out or self._left_out
        return super(BackendFields, bare).__getstate__()

    @cached_property
    def _counters(self) -> CallCounters:
        """What the calls of this model have cost so far; copies share it."""
        return CallCounters()

    @property
    def _limits(self) -> Limits:
        return Limits(self.max_cost_usd, self.requests_per_minute, self.max_concurrency)

    @property
    def spent_usd(self) -> float:
        """US dollars that the calls of this model cost so far, counted where `max_cost_usd` is set."""
        return self._counters.spent_usd

    def _check_settings(self, base_url: str | None) -> None:
        """Refuse when a model is made what no call could use."""
        if self._limits:
            _ = self._counters  # before threads share the model
        if self.local_settings:
            from llama_vision.backends.local.config import parse_local_settings  # noqa: PLC0415 - loaded late, as its backend

            parse_local_settings(self.local_settings)
        check_settings(
            timeout=self.timeout,
            deadline=self.deadline,
            max_retries=self.max_retries,
            headers=self.default_headers,
            base_url=base_url,
        )

    @cached_property
    def _last_backend(self) -> "_LastBackend":
        return _LastBackend()

    def _create_backend(
        self,
        provider: Provider | Route,
        api_key: ApiKey | None,
        base_url: str | None,
        call: Mapping[str, Any] = _NO_OPTIONS,
    ) -> Backend:
        """Create the backend of one call, as the fields are now, or take that of the last call, if nothing has changed.

        Args:
            provider: The record, or the route of several.
            api_key: The key.
            base_url: In place of the record's.
            call: The arguments of the call; those of `BACKEND_OPTIONS` override the fields.
        """
        state: tuple[Any, ...] = (
            *(provider, api_key, base_url, is_traced()),
            *(() if isinstance(provider, Route) else map(os.environ.get, provider.base_url_env)),
            *_backend_fields(vars(self)),
            *(tuple(self.image_allowed_hosts or ()), {**(self.default_headers or {})}),  # may change in place
        )
        last = self._last_backend.last
        as_configured = call.keys().isdisjoint(BACKEND_OPTIONS)
        if last is not None and as_configured and last[0] == state:
            return last[1]
        self._check_unpickled(provider.first if isinstance(provider, Route) else provider)
        backend = self._new_backend(provider, api_key, base_url, call)
        is_plain = isinstance(provider, Provider) and provider.dialect is not None and not self._limits
        if as_configured and is_plain and self.local_settings is None:
            self._last_backend.last = state, backend
        return backend

    def _new_backend(
        self,
        provider: Provider | Route,
        api_key: ApiKey | None,
        base_url: str | None,
        call: Mapping[str, Any],
    ) -> Backend:
        options = {name: call[name] if name in call else getattr(self, name) for name in _FIELDS_OF_A_CALL}
        limits = self._limits
        return create_backend(
            provider,
            api_key=api_key,
            account_id=self.account_id,
            accept_license=self.accept_license,
            base_url=base_url,
            timeout=options["timeout"],
            deadline=options["deadline"],
            max_retries=options["max_retries"],
            headers=_merge_headers(self.default_headers, call.get("extra_headers")),
            images=build_image_settings(
                max_pixels=options["image_max_pixels"],
                image_format=options["image_format"],
                quality=options["image_quality"],
                on_too_many=options["image_policy"],
                allowed_hosts=tuple(options["image_allowed_hosts"] or ()),
                private_networks=options["image_private_networks"],
                document_max_pages=options["document_max_pages"],
                document_text=options["document_text"],
            ),
            local=self.local_settings,
            http_client=self.http_client,
            http_async_client=self.http_async_client,
            limits=limits,
            counters=self._counters if limits else None,
        )

    def _check_unpickled(self, provider: Provider) -> None:
        """Refuse to call without what the pickle of this model held no more: not unauthenticated, nor past a proxy."""
        missing = [name for name in self._left_out if getattr(self, name) is None]
        if self._key_field in missing and find_api_key(provider):
            missing.remove(self._key_field)
        if not missing:
            return
        names = " and ".join("api_key" if name == self._key_field else name for name in missing)
        kind = MissingKeyError if self._key_field in missing else ConfigurationError
        raise kind(
            f"This model was pickled, which leaves {names} out. Set it on the loaded model, or set "
            f"the key's environment variable ({', '.join(provider.key_env) or 'there is none'})."
        ).with_context(provider.name)


@lru_cache(maxsize=16)
def _argument_names(model: type[BaseModel]) -> frozenset[str]:
    aliases = (field.alias for field in model.model_fields.values())
    return frozenset({"class_name", *model.model_fields, *filter(None, aliases)})


def hide_headers(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call with the values of its headers hidden, which may be keys."""
    headers = call.get("extra_headers")
    if not headers:
        return dict(call)
    hidden = {name: _secret(value) for name, value in as_mapping(headers).items()}
    return {**call, "extra_headers": hidden}


def _secret(value: Any) -> SecretStr:
    return value if isinstance(value, SecretStr) else SecretStr(str(value))


def _merge_headers(default: Mapping[str, str] | None, extra: object) -> dict[str, str]:
    """Merge headers, whose names have no case."""
    if extra is not None and not isinstance(extra, Mapping):
        raise ConfigurationError(
            f"extra_headers is a {type(extra).__name__}: give a dictionary of header names and values."
        )
    headers = {name.lower(): value for name, value in (default or {}).items()}
    for name, value in as_mapping(cast("object", extra)).items():
        headers[str(name).lower()] = value.get_secret_value() if isinstance(value, SecretStr) else value
    return headers

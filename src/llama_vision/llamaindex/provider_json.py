"""A `Provider` record of the user's own as JSON, so that a model that has one can be saved, loaded and told from others."""

import base64
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from typing import Any, cast

from llama_vision.core import errors
from llama_vision.core.errors import ConfigurationError, LlamaVisionError, StatusError
from llama_vision.core.models import ModelInfo, Price
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.chat_completions.usage import CostField, UsageFormat
from llama_vision.dialects.error_bodies import ErrorCode, ErrorParser, ErrorRule
from llama_vision.dialects.workers_ai.dialect import WorkersAiDialect
from llama_vision.providers import PROVIDERS, ImageConstraints, LicenseAgreement, Provider, Range
from llama_vision.providers.provider import BatchApi
from llama_vision.providers.route import Route, Target

_RECORDS: dict[str, Any] = {
    record.__name__: record
    for record in (
        *(Route, Target),
        *(Provider, BatchApi, ImageConstraints, LicenseAgreement, Range, ModelInfo, Price),
        *(
            ChatCompletionsDialect,
            WorkersAiDialect,
            UsageFormat,
            CostField,
            ErrorParser,
            ErrorRule,
            ErrorCode,
        ),
    )
}


def dump_provider(provider: Provider | Route | Target) -> str | dict[str, Any]:
    """Dump a record, or a route of several: its name if it is registered, else all of it. It holds no key."""
    if isinstance(provider, Provider) and PROVIDERS.get(provider.name) == provider:
        return provider.name
    return _dump(provider)


def load_provider(dumped: Mapping[str, Any]) -> Provider | Route | Target:
    """Load what `dump_provider` made.

    Raises:
        ConfigurationError: A part is none of this package's, such as a dialect of the user's own, or of another version.
    """
    try:
        loaded = _load(dumped)
    except (KeyError, TypeError, ValueError, AttributeError):
        loaded = None
    if isinstance(loaded, Provider | Route | Target):
        return loaded
    raise ConfigurationError(
        "The saved provider can't be loaded: pass it, as in from_dict(saved, provider=RECORD)."
    )


def _dump(value: Any) -> Any:  # noqa: PLR0911 - one for each form
    if isinstance(value, type):
        return {"error" if issubclass(value, StatusError) else "failover_error": value.__name__}
    if type(value).__name__ in _RECORDS and is_dataclass(value):
        return {"record": type(value).__name__} | {
            field.name: _dump(getattr(value, field.name)) for field in fields(value)
        }
    match value:
        case None | str() | int() | float():
            return value
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case tuple():
            return [_dump(each) for each in cast("tuple[Any, ...]", value)]
        case AbstractSet():
            return {"set": sorted(cast("AbstractSet[str]", value))}
        case Mapping():
            return {"mapping": [[key, _dump(each)] for key, each in cast("Mapping[Any, Any]", value).items()]}
        case _:  # distinct in a cache, and refused by `load_provider`
            return {"unknown": repr(value)}


def _error_class(name: str, base: type[LlamaVisionError]) -> type[LlamaVisionError]:
    kind = getattr(errors, name)
    if not issubclass(kind, base):
        raise TypeError(name)
    return kind


def _load(value: Any) -> Any:  # noqa: PLR0911 - one for each form
    match value:
        case list():
            return tuple(_load(each) for each in cast("list[Any]", value))
        case {"record": name, **values}:
            return _RECORDS[cast("str", name)](**{key: _load(each) for key, each in values.items()})
        case {"mapping": items}:
            return {key: _load(each) for key, each in items}
        case {"set": items}:
            return frozenset(items)
        case {"base64": text}:
            return base64.b64decode(text)
        case {"error": name}:
            return _error_class(name, StatusError)
        case {"failover_error": name}:
            return _error_class(name, LlamaVisionError)
        case {"unknown": _}:
            raise TypeError(value)
        case _:
            return value

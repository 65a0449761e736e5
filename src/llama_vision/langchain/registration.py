"""Registers `ChatLlamaVision` with LangChain's `init_chat_model`, on request."""

import importlib
from collections.abc import Callable
from typing import Any, cast

from langchain_core.language_models.chat_models import BaseChatModel

from llama_vision.core.errors import ConfigurationError, MissingDependencyError, UnknownProviderError
from llama_vision.providers import PROVIDERS, find_provider
from llama_vision.providers.defaults import default_provider

_NAME = "llama_vision"
_MODULE = "langchain.chat_models.base"
_TABLE = "_BUILTIN_PROVIDERS"  # private, hence done by no import; langchain has had it since 1.2.10


def register_with_langchain() -> None:
    """Make `init_chat_model("llama_vision:...")` return a `ChatLlamaVision`; `create_agent` takes the same strings.

    The format is `llama_vision:provider/model`:

        llama_vision:deepinfra/llama-3.2-11b-vision                       our name of the model, at DeepInfra
        llama_vision:vllm/meta-llama/Llama-3.2-11B-Vision-Instruct        the server's own, after the first slash
        llama_vision:deepinfra                                            the provider's first model
        llama_vision:tiny                                                 at $LLAMA_VISION_PROVIDER, else local

    With `init_chat_model(..., provider="deepinfra")` everything after the colon is the model. Further arguments are
    those of `ChatLlamaVision`. It may be called repeatedly.

    Raises:
        MissingDependencyError: The package `langchain` is not installed.
        ConfigurationError: This version of it registers providers in an unknown way.
    """
    try:
        table: object = getattr(importlib.import_module(_MODULE), _TABLE, None)
    except ImportError as error:
        raise MissingDependencyError(
            "init_chat_model belongs to a package of its own, which can't be imported: pip install langchain."
        ) from error
    if not _is_as_expected(table):
        raise ConfigurationError(
            "This version of langchain keeps the providers of init_chat_model in another way (1.2.10 and later are known). "
            "Use ChatLlamaVision(provider=..., model=...) itself."
        )
    cast("dict[str, object]", table)[_NAME] = ("llama_vision.langchain", "ChatLlamaVision", _create)


def _is_as_expected(table: object) -> bool:
    """Tell whether the table's rows are `name: (module, class, factory)`."""
    rows = list(cast("dict[object, object]", table).values()) if isinstance(table, dict) else []
    return bool(rows) and all(
        isinstance(row, tuple)
        and [callable(part) for part in cast("tuple[object]", row)] == [False, False, True]
        for row in rows
    )


def _create(cls: Callable[..., BaseChatModel], model: str, **options: Any) -> BaseChatModel:
    """Create the chat model; `model` is what follows the colon."""
    if "provider" not in options:
        before, slash, after = model.partition("/")
        if slash or before in PROVIDERS:
            options["provider"], model = _known(before), after
        elif model and find_provider(default_provider(options.get("base_url"))).dialect is None:
            from llama_vision.backends.local.config import is_model  # noqa: PLC0415 - hosted models do without

            if not is_model(model):
                _known(model)  # raises: it is no provider's name either
    return cls(**({"model": model} if model else {}), **options)


def _known(name: str) -> str:
    try:
        return find_provider(name).name
    except UnknownProviderError as error:
        raise UnknownProviderError(
            f"{error} In {_NAME}:provider/model a provider's name stands before the first slash, "
            "unless you pass provider=... beside it."
        ) from error

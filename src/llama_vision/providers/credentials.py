"""API keys and account ids: asked for, looked up in the environment, and checked before one is sent."""

import asyncio
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from llama_vision.core.errors import ConfigurationError, MissingKeyError
from llama_vision.providers.provider import Provider

ApiKey: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A key, or a function that returns one, such as a token that expires. It is called for each call."""


def ask_for_key(key: ApiKey | None) -> str | None:
    """Call a key that is a function.

    Raises:
        ConfigurationError: It is a coroutine function, it raises, or what it returns is no text.
    """
    if key is None or isinstance(key, str):
        return key
    token = _call(key)
    if not inspect.isawaitable(token):
        return _checked_token(token)
    if inspect.iscoroutine(token):
        token.close()
    raise ConfigurationError("api_key is a coroutine function, which only asynchronous calls can await.")


async def aask_for_key(key: ApiKey | None) -> str | None:
    """As `ask_for_key`, without blocking the event loop; coroutine functions are awaited."""
    if key is None or isinstance(key, str):
        return key
    if inspect.iscoroutinefunction(key):
        token = _call(key)
    else:
        token = await asyncio.to_thread(_call, key)
    if inspect.isawaitable(token):
        try:
            token = await token
        except Exception as error:
            raise _failed(error) from error
    return _checked_token(token)


def _call(key: Callable[[], object]) -> object:
    try:
        return key()
    except Exception as error:
        raise _failed(error) from error


def _failed(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"The function given as api_key failed: {type(error).__name__}.")


def _checked_token(token: object) -> str:
    secret = getattr(token, "get_secret_value", None)  # a SecretStr
    token = secret() if callable(secret) else token
    if not isinstance(token, str) or not token.strip():
        raise ConfigurationError(
            f"The function given as api_key has to return a key, and returned {type(token).__name__}."
        )
    return token


def find_api_key(provider: Provider) -> str | None:
    """Return the provider's key: the first variable of `key_env` that is not empty, stripped."""
    return _read_first(provider.key_env)


def resolve_api_key(provider: Provider, key: str | None) -> str | None:
    """Return the key of a call: the user's, else that of the environment; None where none is set and none is needed.

    Raises:
        MissingKeyError: There is none, and the provider needs one.
        ConfigurationError: It can't be sent in a header. The text does not quote it.
    """
    key = (key or "").strip() or find_api_key(provider)
    if key is None:
        if not provider.key_required:
            return None
        where = f" You get one at {provider.key_page}." if provider.key_page else ""
        raise MissingKeyError(
            f"{provider.title} needs an API key. Pass api_key=..., or set one of: {', '.join(provider.key_env)}.{where}"
        ).with_context(provider.name)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            f"The API key for {provider.title} holds a space, a line break or a letter that no key has. "
            "It may have been copied with something around it."
        ).with_context(provider.name)
    return key


def resolve_account_id(provider: Provider, account_id: str | None) -> str | None:
    """Return the account id of a call: the user's, else that of the environment; None where URLs contain none.

    Raises:
        ConfigurationError: It is needed and missing, or passed and not needed, or can't be part of a URL.
    """
    if not provider.account_env:
        if account_id is None:
            return None
        raise ConfigurationError(f"{provider.title} has no account_id; leave it out.").with_context(
            provider.name
        )
    account_id = (account_id or "").strip() or _read_first(provider.account_env)
    if account_id is None:
        raise ConfigurationError(
            f"{provider.title} needs the id of your account. Pass account_id=..., "
            f"or set one of: {', '.join(provider.account_env)}."
        ).with_context(provider.name)
    if not re.fullmatch(r"[\w-]+", account_id, re.ASCII):
        raise ConfigurationError(
            "The account_id holds something that no id has: it consists of letters, digits, - and _."
        ).with_context(provider.name)
    return account_id


def describe_variables(names: Sequence[str], *, verbose: bool = False) -> str:
    """Describe which variable is set, never its value: `found in HF_TOKEN`; with `verbose`, all names."""
    name = _first_set(names)
    if name is None:
        return f"none found in {', '.join(names)}"
    return f"found in {name} (looked at {', '.join(names)})" if verbose else f"found in {name}"


def describe_key(provider: Provider, *, verbose: bool = False) -> str:
    """Describe whether a provider's key is set, as `describe_variables` does."""
    if not provider.key_env:
        return "none needed"
    status = describe_variables(provider.key_env, verbose=verbose)
    if provider.key_required:
        return status
    if verbose:
        return f"{status}; needed only where the endpoint wants one"
    return status if status.startswith("found") else f"{status}, if it wants one"


def _read_first(names: Sequence[str]) -> str | None:
    name = _first_set(names)
    return None if name is None else os.environ[name].strip()


def _first_set(names: Sequence[str]) -> str | None:
    return next((name for name in names if os.environ.get(name, "").strip()), None)

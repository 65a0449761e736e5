"""Routes over emulated providers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_vision.backends import create_backend
from llama_vision.core.backend import Backend
from llama_vision.core.models import ModelInfo, Price
from llama_vision.providers import Provider, find_provider
from llama_vision.providers.route import Route
from tests.emulator import Emulator

NAMES = ("first", "second", "third")
PRICE = Price(1.0, 10.0)


def record_of(emulator: Emulator, name: str, model: str | None = None) -> Provider:
    """A provider of that name at the emulator, which takes no key; `model` is its id of the 11B."""
    record = find_provider("deepinfra")
    models = (
        ModelInfo("llama-3.2-11b-vision", model or record.models[0].id, price=PRICE),
        *record.models[1:],
    )
    return replace(
        record, name=name, base_url=emulator.base_url, key_env=(), key_required=False, models=models
    )


def records_of(emulators: Sequence[Emulator]) -> list[Provider]:
    for emulator in emulators:
        emulator.api_key = None
    return [record_of(emulator, name) for emulator, name in zip(emulators, NAMES, strict=False)]


def route_backend(emulators: Sequence[Emulator], *, settings: Any = None, **options: Any) -> Backend:
    """A backend over all emulators, in order; `settings` are the route's."""
    options = {"timeout": 20, "max_retries": 0, **options}
    return create_backend(Route(records_of(emulators), **(settings or {})), **options)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

"""What the contract's tests share: every provider, through both adapters, in every style."""

from collections.abc import Callable

import pytest

from llama_vision import find_provider
from tests.contract.adapters import ADAPTERS, STYLES
from tests.contract.subject import HOSTED, Subject
from tests.emulator import Emulator


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=HOSTED)
def subject(
    request: pytest.FixtureRequest, adapter: str, style: str, emulator_of: Callable[[str], Emulator]
) -> Subject:
    return Subject(emulator_of(request.param), find_provider(request.param), ADAPTERS[adapter], style)

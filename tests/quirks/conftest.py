"""What all quirks share."""

import pytest

from llama_vision import PROVIDERS
from tests.quirks.talk import STREAMED_WAYS, WAYS


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Whole and streamed, waiting and not."""
    return request.param


@pytest.fixture(params=STREAMED_WAYS)
def streamed_way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for record in PROVIDERS.values():
        for name in (*record.key_env, *record.account_env):
            monkeypatch.delenv(name, raising=False)

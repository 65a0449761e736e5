"""What all tests share: an emulated provider on a real socket."""

import os
from collections.abc import Iterator

# Tests run beside each other: torch is several times slower when its threads wait for one another's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing is ever taken from a model hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from tests.cassette_files import WithProvenance
from tests.emulator import Emulator


def pytest_recording_configure(config, vcr):
    vcr.register_persister(WithProvenance)


@pytest.fixture(scope="session")
def emulator_server() -> Iterator[Emulator]:
    """The server; tests take `emulator`, which begins afresh."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def other_emulator_server() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(emulator_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """DeepInfra on this machine; a test fails that leaves a part of its script unplayed."""
    yield from _fresh(emulator_server, monkeypatch)


@pytest.fixture
def other_emulator(other_emulator_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A second host."""
    yield from _fresh(other_emulator_server, monkeypatch)


def _fresh(server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.reset()
    yield server
    unplayed = server.unplayed
    server.reset()
    assert not unplayed, f"{unplayed} scripted answers were never asked for"

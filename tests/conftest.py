"""What all tests share: emulated providers on real sockets."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

# Tests run beside each other: torch is several times slower when its threads wait for one another's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kernels run in Triton's interpreter, which has to be known when torch loads Triton.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Nothing is ever taken from a model hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from llama_vision.backends.http.connection_pools import close_sync
from tests.cassette_files import use_our_files
from tests.emulator import DIALECTS, Emulator
from tests.pairs import beyond_marks, beyond_pairs

PAIRED = tuple(f"tests/{folder}/" for folder in ("contract", "quirks", "langchain", "llamaindex"))
"""Folders that multiply providers, styles and forms: `make test` runs pairs of them, `make test-all` the full product."""


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items):
    paired = [item for item in items if item.nodeid.startswith(PAIRED)]
    for item in [*beyond_pairs(paired), *beyond_marks(items)]:
        item.add_marker("slow")


def pytest_collection_finish():
    """Spare each full collection of garbage the modules and tests, of which a whole run has millions of objects."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import hypothesis  # noqa: F401 - it looks for the referrers of what it is told, which are not found once frozen

        gc.collect()
        gc.freeze()


def pytest_sessionfinish():
    gc.unfreeze()  # extension modules would report what is frozen as leaked


def pytest_recording_configure(config, vcr):
    use_our_files(vcr)


@pytest.fixture(scope="session")
def emulator_server() -> Iterator[Emulator]:
    """The server; tests take `emulator`, which begins afresh."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def other_emulator_server() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def emulator_servers() -> Iterator[Callable[[str], Emulator]]:
    """One server for each provider that a test asks for, from then on; tests take `emulator_of`."""
    with ExitStack() as running:
        servers: dict[str, Emulator] = {}

        def server_of(provider: str) -> Emulator:
            if provider not in servers:
                servers[provider] = running.enter_context(Emulator(DIALECTS[provider]))
            return servers[provider]

        yield server_of


@pytest.fixture
def emulator_of(
    emulator_servers: Callable[[str], Emulator], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Emulator]]:
    """Emulators by the names of our providers, each fresh once in a test, and with its script played in the end."""
    with ExitStack() as in_use:
        taken: dict[str, Emulator] = {}

        def fresh(provider: str) -> Emulator:
            if provider not in taken:
                taken[provider] = in_use.enter_context(_fresh(emulator_servers(provider), monkeypatch))
            return taken[provider]

        yield fresh


@pytest.fixture
def emulator(emulator_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """DeepInfra on this machine; a test fails that leaves a part of its script unplayed."""
    with _fresh(emulator_server, monkeypatch) as server:
        yield server


@pytest.fixture
def other_emulator(other_emulator_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A second host."""
    with _fresh(other_emulator_server, monkeypatch) as server:
        yield server


@contextmanager
def _fresh(server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.reset()
    yield server
    unplayed = server.unplayed
    server.reset()
    close_sync(server.base_url)  # a reset cuts connections, which the next test must not find in the pool
    assert not unplayed, f"{unplayed} scripted answers were never asked for"

"""Where the system can't start another thread, every call ends with an error of ours that says so."""

import asyncio
import threading

import httpx
import pytest

from llama_vision import image_from_any
from llama_vision.backends import create_backend
from llama_vision.backends.http import watchdog
from llama_vision.core.errors import ConnectionFailedError, ImageError
from llama_vision.core.messages import Document, Image
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.images import prepare
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.documents import open_document
from llama_vision.images.download import download
from llama_vision.images.fetch import fetch_image
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.providers import find_provider
from tests.backends.routes import route_backend
from tests.emulator import Emulator, completion
from tests.emulator.asking import ask, backend_for

MESSAGE = "can't start new thread"
URL = "https://made-up.example/a.png"


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch):
    """None of ours, and no pool or watchdog that has one already."""
    original = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("llama-vision"):
            raise RuntimeError(MESSAGE)
        original(thread)

    prepare._pool.cache_clear()
    prepare._cache.cache_clear()
    monkeypatch.setattr(watchdog, "_watchdog", watchdog._Watchdog())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield
    prepare._pool.cache_clear()


def circle() -> Image:
    return image_from_any(SAMPLE_IMAGES["circle"])


def other() -> Image:
    return image_from_any(SAMPLE_IMAGES["sign"])


@pytest.mark.parametrize(
    "call",
    [
        lambda: prepare.prepare_images([circle(), other()], ImageConstraints()),
        lambda: asyncio.run(prepare.aprepare_images([circle()], ImageConstraints())),
        lambda: fetch_image(Image(url=URL), FetchPolicy()),
        lambda: open_document(Document(url=URL)),
        lambda: asyncio.run(download(URL, FetchPolicy())),
    ],
    ids=["several images", "in a task", "fetched", "document", "looked up"],
)
def test_an_image_is_refused(no_threads, call):
    with pytest.raises(ImageError, match=MESSAGE):
        call()


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_a_connection_fails(no_threads, way):
    backend = create_backend(
        find_provider("deepinfra"), base_url="https://made-up.example/v1", api_key="k", max_retries=0
    )
    with pytest.raises(ConnectionFailedError, match=MESSAGE):
        ask(backend, way)


@pytest.fixture
def emulator():
    with Emulator() as running:
        running.always(completion("Hi"))
        yield running


def test_a_call_over_a_client_of_the_users_fails_and_the_next_one_is_watched_over(emulator, no_threads):
    with httpx.Client() as client:
        backend = backend_for(emulator, http_client=client, deadline=20, max_retries=0)
        with pytest.raises(ConnectionFailedError, match=MESSAGE):
            ask(backend, "complete")
        assert not emulator.requests
        assert not watchdog._watchdog._calls
        assert not watchdog._watchdog._running


def test_a_provider_that_cannot_be_asked_in_a_thread_is_one_that_fails(emulator, no_threads):
    with pytest.raises(ConnectionFailedError, match=MESSAGE) as caught:
        ask(route_backend([emulator], settings={"hedge_after": 5}), "stream")
    assert [tried["error"] for tried in caught.value.tried] == ["ConnectionFailedError"]

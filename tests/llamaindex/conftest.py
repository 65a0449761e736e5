"""What the tests of LlamaIndex's parts share."""

import asyncio

import pytest

from tests.llamaindex.gallery import COLORS, FILES


@pytest.fixture
def paths(tmp_path):
    """The gallery's files on disk."""
    places = [tmp_path / f"{color}.png" for color in COLORS]
    for place, file in zip(places, FILES, strict=True):
        place.write_bytes(file)
    return places


@pytest.fixture
def folder(tmp_path):
    """An empty folder for images."""
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def own_loop():
    """Give the thread an event loop and close it: LlamaIndex's parts make one otherwise, which nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.run_until_complete(loop.shutdown_asyncgens())  # which closes the connections that were made in it
    loop.close()

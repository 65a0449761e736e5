"""A pytest fixture for users' own tests.

In a `conftest.py`:

from llama_vision.testing.fixtures import llama_vision_server

__all__ = ["llama_vision_server"]
"""

from collections.abc import Iterator

import pytest

from llama_vision.testing.server import ScriptedServer


@pytest.fixture
def llama_vision_server() -> Iterator[ScriptedServer]:
    """A scripted server for one test, which fails where a line of its script was not used.

        def test_my_chain(llama_vision_server):
            llama_vision_server.script("A cat.")
            model = ChatLlamaVision(**llama_vision_server.model_options)
            assert my_chain(model).invoke("cat.png") == "A cat."

    Yields:
        The server, with an empty script.
    """
    with ScriptedServer() as server:
        yield server

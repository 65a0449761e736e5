"""What the tests of Ray share."""

import pytest

from llama_vision.testing import ScriptedServer


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server

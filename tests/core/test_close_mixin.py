"""Models close their backend's connections: `close`, `aclose`, `with` and `async with`."""

import pytest

from llama_vision.core.backend import CloseMixin


class Connections:
    def __init__(self):
        self.closed = []

    def close(self):
        self.closed.append("close")

    async def aclose(self):
        self.closed.append("aclose")


class Model(CloseMixin):
    def __init__(self):
        self.connections = Connections()

    def _backend(self):
        return self.connections


def test_with_closes_at_its_end_also_after_an_error():
    with Model() as model:
        assert model.connections.closed == []
    assert model.connections.closed == ["close"]
    with pytest.raises(ValueError, match="inside"), model:
        raise ValueError("inside")
    assert model.connections.closed == ["close", "close"]


async def test_async_with_closes_at_its_end():
    async with Model() as model:
        assert model.connections.closed == []
    assert model.connections.closed == ["aclose"]


def test_a_model_has_to_say_what_its_backend_is():
    with pytest.raises(NotImplementedError):
        CloseMixin().close()

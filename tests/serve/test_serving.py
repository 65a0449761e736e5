"""`serving()`: a server in this process, for a notebook or a test."""

import httpx
import pytest

from llama_vision.core.errors import ConfigurationError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.serve import ServeSettings, serving


def test_it_serves_while_the_block_runs():
    with serving(settings=ServeSettings(port=0)) as address:
        model = ChatLlamaVision(provider="llama-vision", model="tiny", base_url=f"{address}/v1")
        assert model.invoke("Say hi").text == "Hi"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_a_port_that_is_taken_is_named():
    with serving(settings=ServeSettings(port=0)) as address:
        port = int(address.rpartition(":")[2])
        refused = pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} can't be listened on")
        with refused, serving(settings=ServeSettings(port=port)):
            pass

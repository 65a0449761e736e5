"""LangChain's standard suite over the server, with our class and with ChatOpenAI: the tiny model's real answers."""

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.langchain.standard import endpoints
from tests.langchain.standard.conftest import no_network

__all__ = ["no_network"]  # a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"),
    # Of ChatOpenAI itself: it puts its parsed object into a field of openai's type, and refuses pydantic 1.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema"),
]


class _Served(endpoints.Local):
    """The tiny model behind the server, which answers: nothing is replayed."""

    provider = "llama-vision"
    enable_vcr_tests = False

    @pytest.fixture(autouse=True)
    def _address(self, served):
        self._base_url = f"{served.url}/v1"

    @property
    def model_override_value(self) -> str:
        return "llama3.2-vision"


class TestChatLlamaVision(_Served, ChatModelIntegrationTests):
    @property
    def chat_model_params(self):
        return {"provider": "llama-vision", "model": "tiny", "base_url": self._base_url}


class TestChatOpenAI(_Served, ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    supports_anthropic_inputs = False

    @pytest.fixture(autouse=True)
    async def _client_of_the_loop(self):
        """By default it shares one client between all models, and so between the event loops of the tests."""
        async with httpx.AsyncClient(timeout=60) as self._http_async_client:
            yield

    @property
    def chat_model_params(self):
        address = {
            "base_url": self._base_url,
            "api_key": "none",
            "http_async_client": self._http_async_client,
        }
        return {"model": "tiny", "max_retries": 0, "stream_usage": True, **address}

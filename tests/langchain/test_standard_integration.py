"""LangChain's own integration suite, with our defaults, over a real socket against the emulated DeepInfra."""

from types import SimpleNamespace

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests import chat_models as suite

from llama_vision.demo import PICTURES
from llama_vision.langchain import ChatLlamaVision


@pytest.fixture(autouse=True)
def suite_without_network(monkeypatch):
    """The suite downloads a picture from GitHub; it gets one of ours."""
    picture = SimpleNamespace(content=PICTURES["circle"].read_bytes())
    monkeypatch.setattr(suite, "httpx", SimpleNamespace(get=lambda *_, **__: picture))


class TestDeepInfra(ChatModelIntegrationTests):
    chat_model_class = ChatLlamaVision
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    model_override_value = "meta-llama/Llama-3.2-90B-Vision-Instruct"

    @pytest.fixture(autouse=True)
    def _emulated(self, emulator):
        type(self).emulator = emulator

    @property
    def chat_model_params(self):
        return {
            "provider": "deepinfra",
            "base_url": self.emulator.base_url,
            "api_key": self.emulator.api_key,
        }

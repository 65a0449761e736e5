"""LangChain's own unit suite, for every endpoint."""

import importlib

import pytest
from langchain_tests.unit_tests import ChatModelUnitTests

from llama_vision.langchain import ChatLlamaVision
from tests.langchain.standard.endpoints import Endpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore:The function `load` is in beta"
)  # LangChain says so of its own


@pytest.fixture(autouse=True)
def loadable():
    """Let `load` find the class: LangChain's `allowed_objects="all"` knows only the packages in a table of its own."""
    loading = importlib.import_module("langchain_core.load.load")
    key = (*ChatLlamaVision.get_lc_namespace(), "ChatLlamaVision")
    loading.ALL_SERIALIZABLE_MAPPINGS[key] = key
    loading._default_class_paths_cache.clear()
    yield
    del loading.ALL_SERIALIZABLE_MAPPINGS[key]
    loading._default_class_paths_cache.clear()


class Hosted(Endpoint):
    @property
    def init_from_env_params(self):
        return (
            {self.record().key_env[0]: "key"},
            {"provider": self.provider},
            {"llama_vision_api_key": "key"},
        )


class TestDeepInfra(Hosted, ChatModelUnitTests):
    provider = "deepinfra"


class TestAimlApi(Hosted, ChatModelUnitTests):
    provider = "aimlapi"


class TestAIGateway(Hosted, ChatModelUnitTests):
    provider = "aigateway"


class TestCloudflare(Hosted, ChatModelUnitTests):
    provider = "cloudflare"


class TestCloudflareOpenAI(Hosted, ChatModelUnitTests):
    provider = "cloudflare-openai"


class TestOpenAICompatible(Hosted, ChatModelUnitTests):
    provider = "openai-compatible"


class TestLocal(Endpoint, ChatModelUnitTests):
    provider = "local"

    @property
    def init_from_env_params(self):
        return {"LLAMA_VISION_MODEL": "some-model"}, {"provider": "local"}, {"model_name": "some-model"}

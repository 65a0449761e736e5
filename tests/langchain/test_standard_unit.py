"""LangChain's own unit suite."""

import importlib

import pytest
from langchain_tests.unit_tests import ChatModelUnitTests

from llama_vision.langchain import ChatLlamaVision


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


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")  # LangChain says so of its own
class TestHosted(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return ChatLlamaVision

    @property
    def chat_model_params(self):
        return {"provider": "deepinfra"}

    @property
    def init_from_env_params(self):
        return {"DEEPINFRA_TOKEN": "key"}, {"provider": "deepinfra"}, {"llama_vision_api_key": "key"}


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")  # as above
class TestLocal(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return ChatLlamaVision

    @property
    def chat_model_params(self):
        return {"provider": "local"}

    @property
    def init_from_env_params(self):
        return {"LLAMA_VISION_MODEL": "some-model"}, {"provider": "local"}, {"model_name": "some-model"}

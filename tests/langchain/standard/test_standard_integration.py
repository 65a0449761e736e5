"""LangChain's own integration suite, with our defaults: over real sockets against emulated providers, and the tiny model."""

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.cassette_cases import ROOT
from tests.cassette_files import vcr_options
from tests.langchain.standard import endpoints


# `base_vcr_config()` of langchain-tests would record whatever is missing, and in a folder that depends on where one stands.
@pytest.fixture(scope="module")
def vcr_config():
    return {**vcr_options(recording=False), "allow_playback_repeats": True}


@pytest.fixture
def vcr_cassette_dir(request):
    name = {"openai-compatible": "deepinfra"}.get(request.cls.provider, request.cls.provider)
    return str(ROOT / "cassettes" / f"emulator-{name}")


@pytest.fixture
def default_cassette_name():
    return "story_streamed"


class TestDeepInfra(endpoints.DeepInfra, ChatModelIntegrationTests):
    pass


class TestAimlApi(endpoints.AimlApi, ChatModelIntegrationTests):
    pass


class TestAIGateway(endpoints.AIGateway, ChatModelIntegrationTests):
    pass


class TestCloudflare(endpoints.Cloudflare, ChatModelIntegrationTests):
    pass


class TestCloudflareOpenAI(endpoints.CloudflareOpenAI, ChatModelIntegrationTests):
    pass


class TestOpenAICompatible(endpoints.OpenAICompatible, ChatModelIntegrationTests):
    pass


# Nothing goes over HTTP that could be replayed, so that the suite streams without taking the time.
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
class TestLocal(endpoints.Local, ChatModelIntegrationTests):
    pass

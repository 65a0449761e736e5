"""The address of a provider: whose counts, and what is refused before anything is sent."""

import pytest

from llama_vision.cli import main
from llama_vision.core.errors import ConfigurationError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal
from llama_vision.providers import find_provider
from llama_vision.providers.base_url import resolve_base_url
from llama_vision.providers.defaults import default_provider
from llama_vision.ray import BatchAsker
from llama_vision.testing import ScriptedServer

SERVERS = {"llama-vision": 8484, "ollama": 11434, "vllm": 8000, "sglang": 30000, "lmstudio": 1234}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch):
    for name in ("LLAMA_VISION_PROVIDER", "LLAMA_VISION_MODEL", "LLAMA_VISION_API_KEY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("named", [None, "", "local"])
def test_an_address_without_a_provider_is_asked_in_langchain(monkeypatch, named):
    if named is not None:
        monkeypatch.setenv("LLAMA_VISION_PROVIDER", named)
    with ScriptedServer("Here.") as server:
        model = ChatLlamaVision(base_url=server.base_url, api_key="k", model="m")
        assert model.provider == "openai-compatible"
        assert model.invoke("Hi").text == "Here."
        assert server.requests[0].body["model"] == "m"


@pytest.mark.parametrize("kind", [LlamaVision, LlamaVisionMultiModal])
def test_an_address_without_a_provider_is_asked_in_llamaindex(kind):
    with ScriptedServer("Here.") as server:
        assert kind(api_base=server.base_url, api_key="k", model="m").complete("Hi").text == "Here."
        assert server.requests[0].body["model"] == "m"


def test_an_address_without_a_provider_is_asked_on_the_command_line(capsys):
    with ScriptedServer("Here.") as server:
        assert main(["ask", "--base-url", server.base_url, "--model", "m", "Hi"]) == 0
        assert server.requests[0].body["model"] == "m"
    assert "Here." in capsys.readouterr().out


def test_an_address_without_a_provider_is_asked_by_ray():
    with ScriptedServer("Here.") as server:
        asker = BatchAsker("Hi", image_column=None, base_url=server.base_url, model="m")
        assert asker({"row": ["1"]})["text"] == ["Here."]
    with pytest.raises(ConfigurationError, match="has no address"):
        BatchAsker("Hi", image_column=None, provider="local", base_url="http://box/v1")


def test_the_environments_provider_keeps_an_address_that_it_can_use(monkeypatch):
    monkeypatch.setenv("LLAMA_VISION_PROVIDER", "sglang")
    assert ChatLlamaVision(base_url="http://box:30000/v1").provider == "sglang"
    assert default_provider() == default_provider("http://box/v1") == "sglang"


def test_the_local_model_refuses_an_address_by_name(capsys):
    with pytest.raises(ConfigurationError, match=r"has no address: leave base_url out.*\[local"):
        ChatLlamaVision(provider="local", base_url="http://box/v1")
    with pytest.raises(ConfigurationError, match="has no address"):
        LlamaVision(provider="local", api_base="http://box/v1")
    assert main(["ask", "--provider", "local", "--base-url", "http://box/v1", "Hi"]) == 2
    assert "has no address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("provider", "address", "text"),
    [
        ("openai-compatible", "http://box/v1/chat/completions", "'http://box/v1'"),
        ("sglang", "http://box/v1/chat/completions/", "'http://box/v1'"),
        ("cloudflare-openai", "http://box/client/accounts/a/ai/v1/chat/completions", "everything before"),
        ("openai-compatible", "box:8000/v1", "has to begin with"),
        ("openai-compatible", None, "such as http://localhost:8000/v1"),
        ("azure", None, "such as https://RESOURCE.openai.azure.com/openai/v1"),
    ],
)
def test_an_address_that_can_not_be_right_is_refused_with_the_right_one(provider, address, text):
    with pytest.raises(ConfigurationError, match=rf"\[{provider}\]") as caught:
        resolve_base_url(find_provider(provider), address)
    assert text in str(caught.value)


def test_a_wrong_address_is_refused_when_the_model_is_made():
    address = "http://box/v1/chat/completions"
    with pytest.raises(ConfigurationError, match="everything before"):
        ChatLlamaVision(base_url=address)
    with pytest.raises(ConfigurationError, match="everything before"):
        LlamaVision(api_base=address)


@pytest.mark.parametrize("provider", SERVERS)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_path_of_a_server_of_ones_own_may_be_left_out(provider, slash):
    record = find_provider(provider)
    assert resolve_base_url(record, f"http://host:7{slash}") == "http://host:7/v1"
    assert resolve_base_url(record, f"http://host:7/proxy{slash}") == "http://host:7/proxy"
    assert resolve_base_url(record, None) == f"http://localhost:{SERVERS[provider]}/v1"


@pytest.mark.parametrize("provider", ["openai-compatible", "deepinfra", "cloudflare"])
def test_nothing_is_added_to_the_address_of_another_host(provider):
    assert resolve_base_url(find_provider(provider), "http://host:7/") == "http://host:7"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("http://box:7", "http://box:7/v1"),
        ("https://box/v1", "https://box/v1"),
        ("box:7", "http://box:7/v1"),
        ("box", "http://box:11434/v1"),
        (":7", "http://localhost:7/v1"),
        ("0.0.0.0", "http://localhost:11434/v1"),  # noqa: S104 - it is not bound to
        ("0.0.0.0:7", "http://localhost:7/v1"),
        ("http://0.0.0.0:7", "http://localhost:7/v1"),
        ("", "http://localhost:11434/v1"),
        ("  ", "http://localhost:11434/v1"),
    ],
)
def test_ollamas_own_variable_names_its_address(monkeypatch, value, address):
    monkeypatch.setenv("OLLAMA_HOST", value)
    assert resolve_base_url(find_provider("ollama"), None) == address
    assert resolve_base_url(find_provider("ollama"), "http://mine:1/v1") == "http://mine:1/v1"
    assert resolve_base_url(find_provider("sglang"), None) == "http://localhost:30000/v1"

"""Models that are named by a string, or chosen while a program runs."""

import importlib
import sys

import pytest
from langchain.agents import create_agent
from langchain.chat_models import base, init_chat_model
from langchain_core.runnables import ConfigurableField
from pydantic import SecretStr

from llama_vision.core.errors import (
    ConfigurationError,
    MissingDependencyError,
    MissingKeyError,
    UnknownProviderError,
)
from llama_vision.langchain import ChatLlamaVision, register_with_langchain
from llama_vision.langchain.api_keys import ProviderKey
from llama_vision.providers.hosted import DEEPINFRA, GROQ
from tests.emulator import completion


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(base, "_BUILTIN_PROVIDERS", dict(base._BUILTIN_PROVIDERS))
    monkeypatch.delenv("LLAMA_VISION_PROVIDER", raising=False)
    monkeypatch.delenv("LLAMA_VISION_MODEL", raising=False)
    register_with_langchain()
    yield
    base._get_chat_model_creator.cache_clear()


def test_nothing_is_registered_unasked():
    assert "llama_vision" not in base._BUILTIN_PROVIDERS
    with pytest.raises(ValueError, match="provider"):
        init_chat_model("llama_vision:tiny")


@pytest.mark.parametrize(
    ("name", "options", "provider", "model"),
    [
        ("llama_vision:deepinfra/llama-3.2-90b-vision", {}, "deepinfra", "llama-3.2-90b-vision"),
        ("llama_vision:vllm/meta-llama/Llama-3.2:x", {}, "vllm", "meta-llama/Llama-3.2:x"),
        ("llama_vision:deepinfra", {}, "deepinfra", "llama-3.2-11b-vision"),
        ("llama_vision:deepinfra/", {}, "deepinfra", "llama-3.2-11b-vision"),
        ("llama_vision:tiny", {}, "local", "tiny"),
        ("llama_vision:", {}, "local", "tiny"),
        ("llama_vision:nvidia/own", {"provider": "vllm"}, "vllm", "nvidia/own"),
        (
            "deepinfra/llama-3.2-90b-vision",
            {"model_provider": "llama-vision"},
            "deepinfra",
            "llama-3.2-90b-vision",
        ),
        (
            "llama-3.2-11b-vision",
            {"model_provider": "llama_vision", "provider": "groq"},
            "groq",
            "llama-3.2-11b-vision",
        ),
    ],
)
def test_how_a_model_is_named(registered, name, options, provider, model):
    chat = init_chat_model(name, temperature=0.5, **options)
    assert isinstance(chat, ChatLlamaVision)
    assert (chat.provider, chat.model_name, chat.temperature) == (provider, model, 0.5)


def test_the_defaults_come_from_the_environment(registered, monkeypatch):
    monkeypatch.setenv("LLAMA_VISION_PROVIDER", "deepinfra")
    chat = init_chat_model("llama_vision:llama-3.2-90b-vision")
    assert (chat.provider, chat.model_name) == ("deepinfra", "llama-3.2-90b-vision")


def test_a_provider_that_is_not_known_is_told_with_the_form(registered):
    with pytest.raises(UnknownProviderError, match=r"'deepinfar'.*deepinfra.*llama_vision:provider/model"):
        init_chat_model("llama_vision:deepinfar/llama-3.2-11b-vision")


@pytest.mark.parametrize("name", ["nosuch", "deepinfar"])
def test_a_name_that_nothing_has_is_no_model_on_this_machine(registered, name):
    with pytest.raises(UnknownProviderError, match=f"no provider '{name}'.*Known are"):
        init_chat_model(f"llama_vision:{name}")


def test_it_answers_as_such_and_in_an_agent(registered, emulator):
    options = {"base_url": emulator.base_url, "api_key": emulator.api_key}
    emulator.script(completion("Hi"), completion("Hello"))
    chat = init_chat_model("llama_vision:deepinfra/llama-3.2-11b-vision", **options)
    assert chat.invoke("Hi").text == "Hi"
    assert create_agent(chat).invoke({"messages": "Hi"})["messages"][-1].text == "Hello"
    assert isinstance(create_agent("llama_vision:tiny").get_graph().nodes, dict)


def test_a_model_can_be_chosen_by_the_configuration(registered, emulator):
    chat = init_chat_model(
        "llama_vision:deepinfra", configurable_fields=["model"], base_url=emulator.base_url, api_key="k"
    )
    emulator.always(completion("Hi"))
    emulator.api_key = "k"
    chat.invoke("Hi")
    chat.invoke("Hi", {"configurable": {"model": "llama_vision:deepinfra/llama-3.2-90b-vision"}})
    assert [request.body["model"] for request in emulator.requests] == [
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "meta-llama/Llama-3.2-90B-Vision-Instruct",
    ]


def test_registering_again_does_no_harm(registered):
    before = dict(base._BUILTIN_PROVIDERS)
    register_with_langchain()
    assert before == base._BUILTIN_PROVIDERS
    assert list(before)[-1] == "llama_vision"


def test_without_langchain_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain.chat_models.base", None)
    with pytest.raises(MissingDependencyError, match="pip install langchain"):
        register_with_langchain()


@pytest.mark.parametrize(
    "table", [None, {}, {"openai": "langchain_openai"}, {"openai": ("langchain_openai", "ChatOpenAI")}]
)
def test_another_langchain_is_told_and_left_alone(monkeypatch, table):
    monkeypatch.setattr(base, "_BUILTIN_PROVIDERS", table)
    before = None if table is None else dict(table)
    with pytest.raises(ConfigurationError, match=r"ChatLlamaVision\("):
        register_with_langchain()
    assert before == importlib.import_module(base.__name__)._BUILTIN_PROVIDERS


def configurable(**options):
    return ChatLlamaVision(**options).configurable_fields(
        model_name=ConfigurableField("model"), provider=ConfigurableField("provider")
    )


def test_model_and_provider_can_be_fields_of_a_configuration(emulator):
    chat = configurable(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)
    emulator.script(completion("Hi"), completion("Hi"))
    chat.invoke("Hi")
    chat.with_config(configurable={"model": "llama-3.2-90b-vision"}).invoke("Hi")
    models = [request.body["model"] for request in emulator.requests]
    assert [name.split("-")[3] for name in models] == ["11B", "90B"]


@pytest.mark.parametrize("given", [{}, {"api_key": "deepinfra-key"}])
def test_a_key_does_not_go_to_another_company(emulator_of, monkeypatch, given):
    emulator = emulator_of("openai-compatible")
    for name in (*GROQ.key_env, *DEEPINFRA.key_env):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEEPINFRA_TOKEN", "deepinfra-key")
    chat = configurable(provider="deepinfra", base_url=emulator.base_url, max_retries=0, **given)
    to_groq = {"configurable": {"provider": "groq", "model": "meta-llama/Llama-3.2-11B-Vision-Instruct"}}
    with pytest.raises(MissingKeyError, match="GROQ_API_KEY"):
        chat.invoke("Hi", to_groq)
    assert emulator.requests == []
    monkeypatch.setenv("GROQ_API_KEY", "groq-key")
    emulator.api_key = "groq-key"
    emulator.script(completion("Hi"))
    chat.invoke("Hi", to_groq)
    assert emulator.requests[0].headers["authorization"] == "Bearer groq-key"


def test_a_key_stays_with_its_company(monkeypatch):
    kept, _ = configurable(provider="cloudflare", api_key="k").prepare(
        {"configurable": {"provider": "cloudflare-openai"}}
    )
    assert kept.llama_vision_api_key.belongs_to(kept._provider)
    model = ChatLlamaVision(provider="deepinfra", api_key="k")
    model.llama_vision_api_key = SecretStr("given later")  # whoever sets it knows for whom
    assert model._backend()._config.api_key == "given later"


def test_a_key_is_compared_as_any_secret():
    key = ProviderKey("k", DEEPINFRA)
    assert key == SecretStr("k") == key == ProviderKey("k", GROQ)
    assert hash(key) == hash(SecretStr("k"))
    assert key != SecretStr("other")
    assert key != "k"
    assert "k" not in repr(key).replace("ProviderKey", "")

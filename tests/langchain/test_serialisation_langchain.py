"""`ChatLlamaVision` saved and loaded, in traces and as a key of caches."""

from dataclasses import replace

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.messages import HumanMessage
from pydantic import ValidationError

from llama_vision import __version__
from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers.hosted import DEEPINFRA
from tests.emulator import completion

KEY = "sk-very-secret-2718"
SECRETS = {"CLOUDFLARE_AUTH_TOKEN": KEY, "CLOUDFLARE_ACCOUNT_ID": "0123abcd"}
OURS = {"allowed_objects": [ChatLlamaVision], "valid_namespaces": ["llama_vision"]}

beta = pytest.mark.filterwarnings("ignore:The function `loads?` is in beta")  # LangChain says so of its own


def full_model():
    return ChatLlamaVision(
        provider="cloudflare",
        model="llama-3.2-11b-vision",
        api_key=KEY,
        account_id="0123abcd",
        base_url="https://example.org/v4",
        temperature=0.25,
        top_p=0.9,
        seed=7,
        stop=["END"],
        max_tokens=None,
        timeout=None,
        text_tool_calls=False,
        image_policy="grid",
        image_allowed_hosts=["example.org"],
        default_headers={"x-byok": KEY},
        extra_body={"raw": True},
    )


@pytest.mark.parametrize("model", [ChatLlamaVision(provider="local"), full_model()], ids=["local", "full"])
def test_a_dump_in_full(model, snapshot):
    assert dumpd(model) == snapshot


def test_a_dump_holds_no_key():
    assert KEY not in dumps(full_model())
    assert dumpd(full_model())["kwargs"]["llama_vision_api_key"] == {
        "lc": 1,
        "type": "secret",
        "id": ["CLOUDFLARE_AUTH_TOKEN"],
    }


@beta
def test_what_is_dumped_can_be_loaded():
    model = full_model()
    loaded = load(dumpd(model), secrets_map=SECRETS, **OURS)
    again = loads(dumps(model), secrets_map=SECRETS, **OURS)
    for thawed in (loaded, again):
        assert thawed.model_dump() == model.model_dump()
        assert thawed.llama_vision_api_key.get_secret_value() == KEY
        assert thawed.profile == model.profile
        assert dumpd(thawed) == dumpd(model)


@beta
def test_a_key_is_loaded_from_the_environment_only_if_asked(monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_AUTH_TOKEN", "from the environment")
    loaded = load(dumpd(full_model()), secrets_from_env=True, **OURS)
    assert loaded.llama_vision_api_key.get_secret_value() == "from the environment"
    assert load(dumpd(full_model()), **OURS).llama_vision_api_key is None


@beta
def test_nothing_else_is_loaded():
    dump = dumpd(ChatLlamaVision(provider="local"))
    with pytest.raises(ValueError, match=r"not allowed|namespace|allowlist"):
        load(dump, allowed_objects="core")
    dump["kwargs"]["colour"] = "red"
    with pytest.raises(ValidationError, match="colour"):
        load(dump, **OURS)


def test_versions_are_traced():
    versions = ChatLlamaVision().metadata["lc_versions"]
    assert versions["llama-vision"] == __version__
    assert "langchain-core" in versions
    mine = {"team": "blue"}
    assert ChatLlamaVision(metadata=mine).metadata.keys() == {"team", "lc_versions"}
    assert mine == {"team": "blue"}


def test_a_class_made_of_ours_keeps_the_version():
    class Mine(ChatLlamaVision):
        """Somebody's own."""

    assert Mine().metadata["lc_versions"]["llama-vision"] == __version__
    assert Mine(temperature=1)._get_ls_params()["ls_temperature"] == 1


def test_tracing_parameters_follow_the_call():
    model = ChatLlamaVision(provider="deepinfra", temperature=0.5, stop=["END"], max_tokens=9)
    assert model._get_ls_params_with_defaults() == {
        "ls_provider": "llama_vision",
        "ls_model_name": "llama-3.2-11b-vision",
        "ls_model_type": "chat",
        "ls_temperature": 0.5,
        "ls_max_tokens": 9,
        "ls_stop": ["END"],
        "ls_integration": "langchain_chat_model",
    }
    called = model._get_ls_params(stop=["STOP"], model="other", temperature=0, max_tokens=1)
    assert called == {
        "ls_provider": "llama_vision",
        "ls_model_name": "other",
        "ls_model_type": "chat",
        "ls_temperature": 0,
        "ls_max_tokens": 1,
        "ls_stop": ["STOP"],
    }
    assert "ls_stop" not in model._get_ls_params(stop=[])


def test_what_identifies_a_model():
    assert full_model()._identifying_params == {
        "provider": "cloudflare",
        "model": "llama-3.2-11b-vision",
        "base_url": "https://example.org/v4",
        "temperature": 0.25,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "extra_body": {"raw": True},
    }
    assert ChatLlamaVision(provider="deepinfra")._identifying_params["base_url"] == DEEPINFRA.base_url
    assert BaseChatModel.asdict(full_model())["_type"] == "llama-vision"


def test_models_with_records_of_the_users_own_share_no_answers(emulator, other_emulator):
    cache = InMemoryCache()
    for server, answer in ((emulator, "one"), (other_emulator, "other")):
        server.script(completion(answer))
        own = replace(DEEPINFRA, base_url=server.base_url)
        model = ChatLlamaVision(provider=own, api_key=server.api_key, cache=cache)
        assert [model.invoke("Hi").text for _ in range(2)] == [answer, answer]


def test_the_results_of_several_prompts_are_added_up(emulator):
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    model = ChatLlamaVision(provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key)
    prompts = [[HumanMessage("Hi")], [HumanMessage("Hello")]]
    emulator.always(completion("Hi", usage=usage, model="m"))
    assert model.generate(prompts).llm_output == {
        "model_name": "m",
        "token_usage": {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26},
    }
    emulator.always(completion("Hi", usage={}, model="m"))
    assert model.generate(prompts).llm_output == {"model_name": "m"}
    streamed = model.model_copy(update={"streaming": True})
    assert streamed.generate(prompts).llm_output == {}
    assert model._combine_llm_outputs([None]) == {}
    assert model._combine_llm_outputs([]) == {}

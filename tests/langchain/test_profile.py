"""What a model says it can do, to agents and their middleware."""

import copy
import warnings
from dataclasses import replace
from typing import get_type_hints

import pytest
from langchain.agents.factory import _supports_provider_strategy
from langchain_core.language_models import ModelProfile
from langchain_core.runnables import ConfigurableField

from llama_vision import PROVIDERS
from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers.hosted import DEEPINFRA

MODELS = [(provider, model.name) for provider, record in PROVIDERS.items() for model in record.models]


def profile_of(provider, model=None, **options):
    named = {} if model is None else {"model": model}
    return ChatLlamaVision(provider=provider, **named, **options).profile


@pytest.mark.parametrize(("provider", "model"), MODELS)
def test_a_profile_says_what_the_record_says(provider, model):
    record = PROVIDERS[provider]
    info = record.model_info(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # LangChain's about keys that it doesn't know
        profile = profile_of(provider, model)
    assert profile.keys() <= get_type_hints(ModelProfile).keys()
    assert None not in profile.values()
    assert profile["max_input_tokens"] == info.context_window
    assert profile.get("max_output_tokens") == info.max_output_tokens
    assert profile["name"] == model
    assert profile["image_inputs"] is (record.image_rules.max_count != 0)
    assert profile["tool_calling"] is True
    assert profile["open_weights"] is True
    assert (profile.get("status") == "deprecated") is bool(info.deprecation)
    if profile["structured_output"]:
        assert info.enforces_schema
        assert "json_schema" in info.response_formats


def test_a_few_profiles_in_full():
    text_only = {
        "text_inputs": True,
        "audio_inputs": False,
        "video_inputs": False,
        "text_outputs": True,
        "image_outputs": False,
        "audio_outputs": False,
        "video_outputs": False,
        "reasoning_output": False,
        "open_weights": True,
        "temperature": True,
    }
    images = dict.fromkeys(
        ("image_inputs", "image_url_inputs", "image_tool_message", "pdf_inputs", "pdf_tool_message"), True
    )
    tools = {"tool_calling": True, "tool_choice": True, "tool_call_streaming": True}
    assert profile_of("local") == {
        **(text_only | images | tools),
        "name": "tiny",
        "max_input_tokens": 2048,
        "structured_output": True,
    }
    assert profile_of("deepinfra", "meta-llama/Llama-3.2-90B-Vision-Instruct") == {
        **(text_only | images | tools),
        "name": "llama-3.2-90b-vision",
        "max_input_tokens": 32_768,
        "max_output_tokens": 16_384,
        "structured_output": False,
    }
    assert profile_of("cloudflare-openai") == {
        **(text_only | dict.fromkeys(images, False) | tools),
        "name": "llama-3.2-11b-vision",
        "max_input_tokens": 128_000,
        "structured_output": False,
    }


def test_what_is_not_known_is_left_out():
    profile = profile_of("deepinfra", "my-own-model")
    unknown = {
        "name",
        "max_input_tokens",
        "max_output_tokens",
        "image_inputs",
        "pdf_inputs",
        "open_weights",
        "status",
    }
    assert not profile.keys() & unknown
    assert profile["tool_calling"] is True
    own = replace(DEEPINFRA, models=(replace(DEEPINFRA.models[0], name="own", id="own/model"),))
    assert "open_weights" not in profile_of(own)
    assert profile_of(own)["max_output_tokens"] == 16_384


@pytest.mark.parametrize(
    ("provider", "calls", "forced"),
    [
        ("deepinfra", True, True),
        ("aimlapi", False, False),
        ("aigateway", True, False),
        ("ollama", False, False),
        ("local", True, True),
    ],
)
def test_without_words_for_tools_only_what_the_provider_has_counts(provider, calls, forced):
    profile = profile_of(provider, text_tool_calls=False)
    assert (profile["tool_calling"], profile["tool_call_streaming"]) == (calls, calls)
    assert profile["tool_choice"] is forced
    in_words = profile_of(provider)
    assert in_words["tool_calling"] is in_words["tool_choice"] is True


def test_agents_ask_for_json_only_where_the_schema_is_kept_to():
    strategies = {
        provider: _supports_provider_strategy(ChatLlamaVision(provider=provider)) for provider in PROVIDERS
    }
    assert {provider for provider, native in strategies.items() if native} == {
        *("local", "llama-vision", "fireworks", "nvidia", "ollama", "vllm", "sglang", "lmstudio")
    }


def test_each_model_has_a_profile_of_its_own():
    one, other = ChatLlamaVision(), ChatLlamaVision()
    one.profile["max_input_tokens"] = 1
    assert other.profile["max_input_tokens"] == 2048
    assert copy.deepcopy(one).profile == one.profile


def test_a_profile_that_is_given_counts():
    assert ChatLlamaVision(profile={"max_input_tokens": 99}).profile == {"max_input_tokens": 99}
    configurable = ChatLlamaVision(profile={"name": "mine"}).configurable_fields(
        temperature=ConfigurableField("temperature")
    )
    chosen, _ = configurable.prepare({"configurable": {"temperature": 0.5}})
    assert chosen.profile == {"name": "mine"}


def test_a_model_chosen_later_has_its_own_profile():
    configurable = ChatLlamaVision().configurable_fields(
        model_name=ConfigurableField("model"), provider=ConfigurableField("provider")
    )
    chosen, _ = configurable.prepare(
        {"configurable": {"provider": "deepinfra", "model": "llama-3.2-90b-vision"}}
    )
    assert chosen.profile == profile_of("deepinfra", "llama-3.2-90b-vision")

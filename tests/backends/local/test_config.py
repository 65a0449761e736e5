"""Local settings are passed where a model object is created."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from llama_vision.backends.local import LocalSettings, parse_local_settings
from llama_vision.core.errors import ConfigurationError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision


def by_langchain(**options):
    return ChatLlamaVision(**options).invoke("Say hi").text


def by_llama_index(**options):
    return LlamaVision(**options).complete("Say hi").text


BOTH = pytest.mark.parametrize("ask", [by_langchain, by_llama_index])


@BOTH
def test_a_device_map_is_taken(ask):
    settings = {"device_map": {"": "cpu", "model.language_model.layers.3": "cpu"}}
    assert ask(provider="local", local_settings=settings) == "Hi"


@BOTH
def test_settings_take_effect(ask):
    assert ask(provider="local", local_settings={"max_batch_size": 2, "dtype": "float32"}) == "Hi"
    with pytest.raises(Exception, match="model's context 10") as refused:
        ask(provider="local", local_settings={"max_model_len": 10})
    assert type(refused.value).__name__ == "ContextTooLongError"


@BOTH
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_rows": 3}, "There is no local setting max_rows. There are: max_batch_size"),
        ({"max_batch_size": 0}, "1 or more"),
    ],
)
def test_wrong_settings_are_refused_by_name(ask, settings, text):
    with pytest.raises(ConfigurationError, match=text):
        ask(provider="local", local_settings=settings)


@pytest.mark.parametrize("model", [ChatLlamaVision, LlamaVision])
def test_a_wrong_setting_is_refused_when_the_model_is_made(model):
    with pytest.raises(ConfigurationError, match="max_batch_size has to be an integer, and is None"):
        model(provider="local", local_settings={"max_batch_size": None})


@BOTH
def test_they_are_refused_for_hosted_providers(ask):
    with pytest.raises(
        ConfigurationError, match="max_batch_size: that is for models on this machine, and DeepInfra"
    ):
        ask(provider="deepinfra", api_key="test", local_settings={"max_batch_size": 2})


def test_settings_are_built_from_a_mapping():
    assert parse_local_settings({"max_waiting": 3}) == LocalSettings(max_waiting=3)
    assert parse_local_settings({}) == LocalSettings()


WRONG_VALUES = {
    "max_batch_size": [None, 0, 2.0, "4", True, float("nan"), [3]],
    "max_model_len": [1, -5, 100.5, "100", False],
    "kv_cache_bytes": [-1, 1e9, "1GB"],
    "image_cache_bytes": [-1, 1e9, "1GB"],
    "prefix_cache_bytes": [-1, 0.5, {}],
    "max_waiting": [None, 0, float("inf"), b"9"],
    "device": ["", "cuda:", "cuda:-1", "cuda:x", "GPU 0", 0, b"cpu", ["cpu"]],
    "dtype": [None, "int3", "", ["float32"], 32],
    "quantization": ["", "int3", ["int8"], 8, True],
    "adapter": ["", 3, b"folder", ["folder"], Path("folder")],
    "device_map": ["balanced", "", "cuda:1", 0, ["cpu"], True],
}


@pytest.mark.parametrize("name", [field.name for field in fields(LocalSettings)])
def test_a_value_that_cannot_be_is_refused_when_settings_are_made(name):
    for value in WRONG_VALUES[name]:
        with pytest.raises(ConfigurationError, match=f"{name} has to be .*{re.escape(repr(value))}"):
            LocalSettings(**{name: value})


def test_names_of_any_type_are_refused():
    with pytest.raises(ConfigurationError, match="There is no local setting 1, max_rows"):
        parse_local_settings({"max_rows": 1, 1: 2})

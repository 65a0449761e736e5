"""Which provider and model are meant where none is named."""

import pytest

from llama_vision.core.errors import UnknownProviderError
from llama_vision.core.models import ModelInfo
from llama_vision.providers import Provider
from llama_vision.providers.defaults import default_model, default_provider


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("LLAMA_VISION_PROVIDER", raising=False)
    monkeypatch.delenv("LLAMA_VISION_MODEL", raising=False)
    return monkeypatch


@pytest.mark.parametrize(("value", "provider"), [(None, "local"), ("", "local"), ("deepinfra", "deepinfra")])
def test_the_provider_is_the_variables_or_this_machine(environment, value, provider):
    if value is not None:
        environment.setenv("LLAMA_VISION_PROVIDER", value)
    assert default_provider() == provider


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("local", "tiny"),
        ("deepinfra", "llama-3.2-11b-vision"),
        (Provider("mine", "My Host", None, models=(ModelInfo("one", "1"), ModelInfo("two", "2"))), "one"),
    ],
    ids=["local", "deepinfra", "a record"],
)
@pytest.mark.parametrize("value", [None, "", "chosen"])
def test_the_model_is_the_variables_or_the_records_first(environment, provider, model, value):
    if value is not None:
        environment.setenv("LLAMA_VISION_MODEL", value)
    assert default_model(provider) == (value or model)


def test_an_unknown_provider_has_no_default_model():
    with pytest.raises(UnknownProviderError):
        default_model("nobody")

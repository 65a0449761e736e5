"""The records of the providers, and how one is found."""

from dataclasses import fields

import pytest

from llama_vision.core.errors import ConfigurationError, UnknownProviderError
from llama_vision.core.models import ModelInfo
from llama_vision.core.request import Sampling
from llama_vision.providers import PROVIDERS, Provider, Range, find_provider

every_record = pytest.mark.parametrize("record", PROVIDERS.values(), ids=PROVIDERS.keys())
MINE = Provider("mine", "My own", None, models=(ModelInfo("ours", "theirs/ours"),))


@pytest.mark.parametrize("name", ["local", "deepinfra", "openai-compatible"])
def test_a_provider_is_found_by_its_name(name):
    assert find_provider(name).name == name


def test_a_record_of_ones_own_is_taken_as_it_is():
    assert find_provider(MINE) is MINE


@pytest.mark.parametrize("name", ["deepinfrared", "", "DeepInfra"])
def test_an_unknown_name_is_refused_with_all_known_ones(name):
    with pytest.raises(UnknownProviderError) as caught:
        find_provider(name)
    assert isinstance(caught.value, ConfigurationError)
    assert all(known in str(caught.value) for known in [repr(name), *PROVIDERS])
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["ours", "theirs/ours"])
def test_a_model_is_found_by_our_name_and_by_theirs(name):
    assert MINE.model_info(name) is MINE.models[0]


def test_an_unknown_model_is_passed_on():
    assert MINE.model_info("theirs/next") == ModelInfo("theirs/next", "theirs/next")


@every_record
def test_a_record_is_complete(record):
    assert record.title
    assert record.docs.startswith("https://")
    assert record.models
    assert all(variable.isupper() for variable in record.key_env)
    assert record.key_env or not record.key_required
    assert not record.key_required or record.key_page.startswith("https://")


@every_record
def test_an_address_is_https_without_a_slash_at_the_end(record):
    assert record.base_url is None or (record.base_url.startswith("https://") and record.base_url[-1] != "/")


@every_record
def test_models_are_told_apart_by_their_names(record):
    names = [name for model in record.models for name in {model.name, model.id}]
    assert len(set(names)) == len(names)


@every_record
def test_limits_are_those_of_sampling_and_allow_something(record):
    assert set(record.limits) <= {field.name for field in fields(Sampling)}
    assert all(limits.low < limits.high for limits in record.limits.values())


@every_record
def test_every_provider_takes_png_and_jpeg(record):
    assert {"image/png", "image/jpeg"} <= record.image_rules.media_types


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "shown"),
    [
        (Range(0, 2), [0, 1, 2], [-0.001, 2.001], "from 0 to 2"),
        (Range(0, 1, low_excluded=True), [0.001, 1], [0, -1, 1.001], "above 0 to 1"),
        (Range(0.01, 5), [0.01, 5], [0, 5.1, float("nan"), float("inf")], "from 0.01 to 5"),
    ],
)
def test_a_range_has_closed_ends_unless_it_says_otherwise(limits, inside, outside, shown):
    assert all(value in limits for value in inside)
    assert not any(value in limits for value in outside)
    assert str(limits) == shown

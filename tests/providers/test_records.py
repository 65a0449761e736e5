"""The records of the providers, and how one is found."""

from dataclasses import replace

import pytest

from llama_vision.core.call_options import CALL_OPTIONS
from llama_vision.core.errors import ConfigurationError, UnknownProviderError
from llama_vision.core.messages import Message, Text
from llama_vision.core.models import ModelInfo
from llama_vision.core.request import ChatRequest
from llama_vision.providers import PROVIDERS, UNBOUNDED, Provider, Range, find_provider

every_record = pytest.mark.parametrize("record", PROVIDERS.values(), ids=PROVIDERS.keys())
MINE = Provider("mine", "My own", None, models=(ModelInfo("ours", "theirs/ours"),))


@pytest.mark.parametrize("name", list(PROVIDERS))
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


def test_an_unknown_model_is_passed_on_as_a_llama_that_takes_tools():
    assert MINE.model_info("theirs/next") == ModelInfo(
        "theirs/next", "theirs/next", context_window=131_072, max_output_tokens=None, tools=True, price=None
    )


@every_record
def test_a_record_is_complete(record):
    assert record.title
    assert record.docs.startswith("https://")
    assert record.models
    assert all(variable.isupper() for variable in record.key_env)
    assert record.key_env or not record.key_required
    assert not record.key_required or record.key_page.startswith("https://")


@every_record
def test_an_address_is_on_this_machine_or_https_and_without_a_slash_at_the_end(record):
    assert record.base_url is None or record.base_url.startswith(("https://", "http://localhost:"))
    assert record.base_url is None or not record.base_url.endswith("/")


@every_record
def test_models_are_told_apart_by_their_names(record):
    names = [name for model in record.models for name in {model.name, model.id}]
    assert len(set(names)) == len(names)


@every_record
def test_parameters_have_the_names_of_our_options_and_allow_something(record):
    parameters = record.parameters or {}
    assert set(parameters) <= CALL_OPTIONS
    assert all(limits.low < limits.high for limits in parameters.values())


@every_record
def test_the_length_of_a_reply_can_always_be_limited(record):
    assert record.supports("max_tokens")


@every_record
def test_a_provider_either_takes_stop_texts_or_has_them_watched_for_here(record):
    assert record.supports("stop") is not record.client_side_stop


@every_record
def test_an_account_is_asked_for_where_addresses_contain_one(record):
    paths = [record.license.path] if record.license else []
    if record.dialect is not None:
        request = ChatRequest("model", (Message("user", (Text("Hi"),)),))
        paths.append(record.dialect.encode(request, stream=False).path)
    assert any("{account}" in path for path in paths) is bool(record.account_env)
    assert all(variable.isupper() for variable in record.account_env)


def test_what_is_not_listed_is_not_taken_unless_there_is_no_list():
    listed = replace(MINE, parameters={"seed": UNBOUNDED})
    assert [listed.supports(name) for name in ("seed", "top_k")] == [True, False]
    assert MINE.supports("seed")


@every_record
def test_every_provider_takes_png_and_jpeg(record):
    assert {"image/png", "image/jpeg"} <= record.image_rules.media_types


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "shown"),
    [
        (Range(0, 2), [0, 1, 2], [-0.001, 2.001], "from 0 to 2"),
        (Range(1, 9_999_999_999), [1], [0, 10_000_000_000], "from 1 to 9999999999"),
        (UNBOUNDED, [-1e300, 0, float("inf")], [float("nan")], "from -inf to inf"),
        (Range(0, 1, exclusive_minimum=True), [0.001, 1], [0, -1, 1.001], "above 0 to 1"),
        (Range(0.01, 5), [0.01, 5], [0, 5.1, float("nan"), float("inf")], "from 0.01 to 5"),
    ],
)
def test_a_range_has_closed_ends_unless_it_says_otherwise(limits, inside, outside, shown):
    assert all(value in limits for value in inside)
    assert not any(value in limits for value in outside)
    assert str(limits) == shown

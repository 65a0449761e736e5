"""Where a key comes from, and which keys are refused without being shown."""

import pytest

from llama_vision.core.errors import ConfigurationError, MissingKeyError
from llama_vision.providers import Provider
from llama_vision.providers.credentials import find_api_key, resolve_api_key

NEEDS_KEY = Provider(
    "mine", "My Host", None, models=(), key_env=("MINE_TOKEN", "MINE_API_KEY"), key_page="https://example.com/keys"
)  # fmt: skip
NO_PAGE = Provider("mine", "My Host", None, models=(), key_env=("MINE_TOKEN", "MINE_API_KEY"))
KEYLESS = Provider("mine", "My Host", None, models=(), key_env=("MINE_TOKEN",), key_required=False)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in NEEDS_KEY.key_env:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({}, None),
        ({"MINE_TOKEN": "first"}, "first"),
        ({"MINE_API_KEY": "second"}, "second"),
        ({"MINE_TOKEN": "first", "MINE_API_KEY": "second"}, "first"),
        ({"MINE_TOKEN": "", "MINE_API_KEY": "second"}, "second"),
        ({"MINE_TOKEN": " \n", "MINE_API_KEY": " second\r\n"}, "second"),
        ({"MINE_TOKEN": " "}, None),
    ],
)
def test_the_first_variable_that_says_something_counts(environment, variables, key):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert find_api_key(NEEDS_KEY) == key


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("mine", "mine"),
        (" mine\n", "mine"),
        ("jwt:abc.def", "jwt:abc.def"),
        (None, "theirs"),
        ("", "theirs"),
        ("  ", "theirs"),
    ],
)
def test_a_key_that_was_given_goes_before_the_environment(environment, given, key):
    environment.setenv("MINE_TOKEN", "theirs")
    assert resolve_api_key(NEEDS_KEY, given) == key


def test_a_missing_key_names_every_variable_and_where_to_get_one():
    with pytest.raises(MissingKeyError) as caught:
        resolve_api_key(NEEDS_KEY, None)
    assert str(caught.value) == (
        "My Host needs an API key. Pass api_key=..., or set one of: MINE_TOKEN, MINE_API_KEY. "
        "You get one at https://example.com/keys. [mine]"
    )


def test_a_missing_key_says_nothing_of_a_page_that_is_not_known():
    with pytest.raises(MissingKeyError, match=r"MINE_TOKEN, MINE_API_KEY\. \[mine\]$"):
        resolve_api_key(NO_PAGE, None)


@pytest.mark.parametrize("key", [None, ""])
def test_who_needs_no_key_gets_none(key):
    assert resolve_api_key(KEYLESS, key) is None


def test_who_needs_no_key_may_have_one(environment):
    environment.setenv("MINE_TOKEN", "theirs")
    assert resolve_api_key(KEYLESS, None) == "theirs"
    assert resolve_api_key(KEYLESS, "mine") == "mine"


@pytest.mark.parametrize(
    "key", ["s3cret key", "s3cret\nkey", "s3cret\x00", "s3crét", "“s3cret”", "s3cret\u200b"], ids=ascii
)
@pytest.mark.parametrize("given", [True, False])
def test_a_key_with_something_strange_in_it_is_refused_and_not_shown(environment, given, key):
    if not given and "\x00" in key:
        key = key.replace("\x00", "\x01")  # no environment can hold a zero
    environment.setenv("MINE_TOKEN", "good" if given else key)
    with pytest.raises(ConfigurationError, match="The API key for My Host holds a space") as caught:
        resolve_api_key(NEEDS_KEY, key if given else None)
    shown = f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "s3cr" not in shown
    assert not isinstance(caught.value, MissingKeyError)

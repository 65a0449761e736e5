"""Where an account's id comes from, and what the state of variables is said to be without their values."""

from dataclasses import replace

import pytest

from llama_vision.core.errors import ConfigurationError
from llama_vision.providers import Provider
from llama_vision.providers.credentials import describe_key, describe_variables, resolve_account_id

MINE = Provider(
    "mine", "My Host", None, models=(), key_env=("MINE_TOKEN", "MINE_KEY"), account_env=("MINE_ACCOUNT", "MINE_ID")
)  # fmt: skip
WITHOUT_ACCOUNT = replace(MINE, account_env=())


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*MINE.key_env, *MINE.account_env):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("given", [None, "", " \n"])
def test_the_first_variable_that_is_set_counts_where_none_is_given(environment, given):
    environment.setenv("MINE_ACCOUNT", " ")
    environment.setenv("MINE_ID", " abc_1\n")
    assert resolve_account_id(MINE, given) == "abc_1"
    assert resolve_account_id(MINE, " own-2 ") == "own-2"


@pytest.mark.parametrize(
    ("provider", "account_id", "message"),
    [
        (MINE, None, r"account_id=.*MINE_ACCOUNT, MINE_ID.*\[mine\]"),
        (MINE, "a/b", r"consists of letters, digits, - and _"),
        (MINE, "\u00e4", r"consists of letters, digits, - and _"),
        (WITHOUT_ACCOUNT, "abc", r"My Host has no account_id; leave it out"),
    ],
)
def test_an_account_that_is_missing_needless_or_unusable_is_refused(provider, account_id, message):
    with pytest.raises(ConfigurationError, match=message):
        resolve_account_id(provider, account_id)


def test_a_provider_without_accounts_needs_none():
    assert resolve_account_id(WITHOUT_ACCOUNT, None) is None


def test_the_state_of_variables_names_them_and_no_value(environment):
    assert describe_variables(MINE.key_env) == "none found in MINE_TOKEN, MINE_KEY"
    environment.setenv("MINE_KEY", "sk-secret")
    assert describe_variables(MINE.key_env) == "found in MINE_KEY"
    assert (
        describe_variables(MINE.key_env, verbose=True) == "found in MINE_KEY (looked at MINE_TOKEN, MINE_KEY)"
    )


def test_the_state_of_a_key_says_whether_one_is_needed(environment):
    keyless = replace(MINE, key_required=False)
    assert describe_key(replace(MINE, key_env=())) == "none needed"
    assert describe_key(MINE) == "none found in MINE_TOKEN, MINE_KEY"
    assert describe_key(keyless) == "none found in MINE_TOKEN, MINE_KEY, if it wants one"
    assert describe_key(keyless, verbose=True).endswith("; needed only where the endpoint wants one")
    environment.setenv("MINE_TOKEN", "sk-secret")
    assert describe_key(MINE) == describe_key(keyless) == "found in MINE_TOKEN"

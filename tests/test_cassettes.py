"""Replies of providers, replayed from `cassettes/`. Each cassette says on its first line where it came from.

`make record PROVIDER=deepinfra` asks the provider itself again, with your own key, and writes them anew.
"""

import pytest

from llama_vision.core.errors import ConfigurationError, StreamError
from llama_vision.providers import PROVIDERS
from llama_vision.providers.credentials import resolve_account_id, resolve_api_key
from tests.cassette_cases import CASES, ROOT, access_to_emulator, ask_langchain, ask_llamaindex
from tests.cassette_files import saved_only_if_all_is_well, vcr_options
from tests.cassette_reading import batched, complaint, said
from tests.emulator import DIALECTS

EVERY_CASE = pytest.mark.parametrize(("folder", "name"), CASES, ids=map("/".join, CASES))


@pytest.fixture(scope="module")
def vcr_config(record_mode):
    return vcr_options(recording=record_mode != "none")


@pytest.fixture
def access(request, record_mode):
    """What opens the door: a real key to record with, any key to replay."""
    folder, name = request.node.callspec.params["folder"], request.node.callspec.params["name"]
    case = CASES[folder, name]
    provider = PROVIDERS[case.provider]
    emulated = folder.startswith("emulator-")
    if emulated and record_mode != "none":
        return access_to_emulator(case, request.getfixturevalue("emulator_of"))
    if record_mode == "none":
        url = f"http://127.0.0.1{DIALECTS[case.provider]().base_path}" if emulated else None
        return {"url": url, "api_key": "recorded", "account_id": "recorded" if provider.account_env else None}
    try:
        resolve_api_key(provider, None)
        resolve_account_id(provider, None)
    except ConfigurationError as error:
        pytest.exit(f"Nothing was recorded. {error}", returncode=2)
    # VCR can't read zstd, which httpx asks for where it finds a package for it.
    return {"default_headers": {"accept-encoding": "gzip"}}


@pytest.fixture
def vcr_cassette_dir(request, access):
    return str(ROOT / "cassettes" / request.node.callspec.params["folder"])


@pytest.fixture
def default_cassette_name(request):
    return request.node.callspec.params["name"]


def check(case, ask, access, cassette, record_mode):
    """Ask, and compare with what the cassette itself says; the last response is the one that was just recorded."""
    with saved_only_if_all_is_well(cassette):
        answer = ask(case, **access) if case.error is None else failure(case, ask, access)
    response = cassette.responses[-1]
    if case.error is StreamError:
        assert answer.partial.text == said(case.provider, response)["text"] != ""
    elif case.error is not None:
        assert answer.status_code == response["status"]["code"]
        assert complaint(response) in str(answer)
    else:
        expected = said(case.provider, batched(response) if case.batched else response)
        assert answer | {"cost": None} == expected | {"cost": None}
        assert answer["cost"] == pytest.approx(expected["cost"])
        assert answer["text"] or answer["calls"]
    assert cassette.all_played or record_mode != "none", "an interaction was left unplayed"


def failure(case, ask, access):
    with pytest.raises(case.error) as caught:
        ask(case, **access)
    return caught.value


@pytest.mark.vcr
@pytest.mark.block_network
@EVERY_CASE
def test_chat_llama_vision_delivers_what_the_provider_said(folder, name, access, vcr, record_mode):
    check(CASES[folder, name], ask_langchain, access, vcr, record_mode)


@pytest.mark.vcr
@pytest.mark.block_network
@EVERY_CASE
def test_llama_vision_delivers_what_the_provider_said(folder, name, access, vcr, record_mode):
    check(CASES[folder, name], ask_llamaindex, access, vcr, record_mode)

"""Recording: over a real socket, as `make record` does it, and without harm to what was there before."""

import dataclasses
import datetime as dt
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vcr import VCR
from vcr.request import Request

from llama_vision.core.errors import ServerError
from llama_vision.providers import PROVIDERS
from tests.cassette_cases import CASES, ROOT, access_to_emulator, ask_langchain, ask_llamaindex
from tests.cassette_files import (
    ReadableYaml,
    WithProvenance,
    saved_only_if_all_is_well,
    use_our_files,
    vcr_options,
)
from tests.drawing import png, scene
from tests.emulator import completion

EMULATED = sorted(case for case in CASES if case[0].startswith("emulator-"))


def recorder(path, *, recording=True):
    vcr = VCR(record_mode="none")
    use_our_files(vcr)
    return vcr.use_cassette(str(path), **vcr_options(recording=recording))


def ask(case, access):
    if case.error is None:
        return ask_llamaindex(case, **access)
    with pytest.raises(case.error):
        ask_llamaindex(case, **access)
    return None


@pytest.mark.parametrize(("folder", "name"), EMULATED, ids=map("/".join, EMULATED))
def test_an_emulator_answers_as_it_was_recorded(folder, name, emulator_of, tmp_path):
    """If this fails because an emulator has learned something: make record PROVIDER=<the folder>."""
    case = CASES[folder, name]
    with recorder(tmp_path / "cassette.yaml"):
        ask(case, access_to_emulator(case, emulator_of))
    recorded = (ROOT / "cassettes" / folder / f"{name}.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "cassette.yaml").read_text(encoding="utf-8") == recorded


def test_a_call_that_fails_leaves_the_old_cassette(emulator_of, tmp_path):
    path = shutil.copy(ROOT / "cassettes/emulator-deepinfra/image.yaml", tmp_path)
    before = Path(path).read_text(encoding="utf-8")
    case = CASES["emulator-deepinfra", "image"]
    access = access_to_emulator(case, emulator_of)
    emulator_of("deepinfra").script(emulator_of("deepinfra").refusal(500))
    with recorder(path) as cassette, pytest.raises(ServerError), saved_only_if_all_is_well(cassette):
        ask_langchain(case, **access)
    assert Path(path).read_text(encoding="utf-8") == before


def test_what_came_from_a_provider_says_so_and_when(tmp_path):
    request = Request("POST", "https://api.deepinfra.com/v1/openai/chat/completions", b"{}", {})
    response = {"status": {"code": 200, "message": "OK"}, "headers": {}, "body": {"string": b"{}"}}
    cassette = {"requests": [request], "responses": [response]}
    WithProvenance.save_cassette(tmp_path / "new" / "a.yaml", cassette, ReadableYaml)
    first_line = (tmp_path / "new" / "a.yaml").read_text(encoding="utf-8").partition("\n")[0]
    assert first_line == f"# provenance: live {dt.datetime.now(dt.UTC).date()}"


def test_what_looks_like_a_key_is_not_saved(emulator_of, tmp_path):
    case = CASES["emulator-deepinfra", "tool_call"]
    access = access_to_emulator(case, emulator_of)
    emulator_of("deepinfra").script({**completion("Hi"), "id": "Ab3dEf6hIj" * 4})
    with (
        recorder(tmp_path / "a.yaml") as cassette,
        pytest.raises(ValueError, match="Nothing was saved: the cassette would hold what looks like a token"),
        saved_only_if_all_is_well(cassette),
    ):
        ask_langchain(case, **access)
    assert not list(tmp_path.iterdir())


def test_an_interaction_that_is_not_played_is_seen(emulator_of, tmp_path):
    case = CASES["emulator-deepinfra", "image"]
    access = access_to_emulator(case, emulator_of)
    with recorder(tmp_path / "a.yaml"):
        ask_langchain(case, **access)
        ask_langchain(case, **access)
    with recorder(tmp_path / "a.yaml", recording=False) as cassette:
        ask_langchain(case, **access)
        assert not cassette.all_played
        ask_langchain(case, **access)
        assert cassette.all_played


@pytest.mark.block_network
@pytest.mark.parametrize("ask", [ask_langchain, ask_llamaindex])
@pytest.mark.parametrize(
    "other",
    [{"turns": (("user", "Who?"),)}, {"image": png(scene(("red", "star", 1, 1)))}],
    ids=["question", "image"],
)
def test_another_question_is_not_answered_from_a_cassette(other, ask):
    case = dataclasses.replace(CASES["emulator-deepinfra", "image"], **other)
    with (
        recorder(ROOT / "cassettes/emulator-deepinfra/image.yaml", recording=False),
        pytest.raises(Exception, match="No match for the request"),
    ):
        ask(case, "http://127.0.0.1/v1/openai", api_key="recorded")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Nothing was recorded. DeepInfra needs an API key."),
        # Nothing listens there, so the made-up key goes nowhere.
        ({"DEEPINFRA_TOKEN": "made-up-key", "ALL_PROXY": "http://127.0.0.1:9"}, "ConnectionFailedError"),
    ],
    ids=["no key", "no connection"],
)
def test_make_record_that_can_not_record_says_why_and_changes_nothing(given, said, tmp_path):
    stamp = tmp_path / "installed"
    stamp.touch()
    cassettes = sorted((ROOT / "cassettes").rglob("*.yaml"))
    before = [path.read_bytes() for path in cassettes]
    proxies = ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy", "all_proxy")
    dropped = {*PROVIDERS["deepinfra"].key_env, *proxies}
    environment = {name: value for name, value in os.environ.items() if name not in dropped} | given
    make = ["make", "record", "PROVIDER=deepinfra", f"STAMP={stamp}", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(make, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode
    assert said in done.stdout + done.stderr
    assert [path.read_bytes() for path in cassettes] == before

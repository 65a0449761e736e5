"""`llama-vision doctor`: what it says about this machine, and what it does not send."""

import importlib.metadata
import importlib.util
import socket

import pytest

from llama_vision.backends.local import devices
from llama_vision.backends.local.devices import Device
from llama_vision.cli import main
from llama_vision.providers import PROVIDERS

FIND_DEVICES = devices.find_devices
KEY = "sk-live-secret-2718281828"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """No key, and a machine that is the same everywhere."""
    for provider in PROVIDERS.values():
        for name in (*provider.key_env, *provider.account_env, *provider.base_url_env):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "find_devices", lambda: [Device("cpu", "8 processors", int(16e9))])


def doctor(capsys, *arguments):
    code = main(["doctor", *arguments])
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err
    return code, printed.out.splitlines()


def test_each_finding_is_a_line_that_says_what_to_do(capsys):
    code, lines = doctor(capsys)
    assert code == 0
    assert all(line.startswith(("ok ", "note ", "problem ")) for line in lines)
    assert lines[0].startswith("ok      llama-vision ")
    assert any(f"langchain-core {importlib.metadata.version('langchain-core')}" in line for line in lines)
    assert any(
        "no key for" in line and "deepinfra" in line and "llama-vision providers" in line for line in lines
    )


def test_a_key_is_found_and_never_printed(capsys, monkeypatch):
    monkeypatch.setenv("DEEPINFRA_TOKEN", KEY)
    code, lines = doctor(capsys)
    assert code == 0
    assert "ok      deepinfra: key found in DEEPINFRA_TOKEN" in lines


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"DEEPINFRA_TOKEN": f"{KEY} and more"}, "holds a space"),
        ({"CLOUDFLARE_API_TOKEN": KEY}, "needs the id of your account"),
    ],
)
def test_a_key_that_can_not_work_is_a_problem(capsys, monkeypatch, variables, text):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, lines = doctor(capsys)
    assert code == 1
    assert any(line.startswith("problem ") and text in line for line in lines)


def test_a_missing_extra_is_a_note_with_its_command(capsys, monkeypatch):
    real = importlib.metadata.version

    def without_ray(name):
        if name == "ray":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", without_ray)
    code, lines = doctor(capsys)
    assert code == 0
    assert any(line.startswith("note ") and "pip install 'llama-vision[ray]'" in line for line in lines)


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        (80e9, "The 11B fits."),
        (16e9, "'int8'"),
        (10e9, "'int4'"),
        (4e9, "Too small for the 11B"),
        (None, "unknown memory"),
    ],
)
def test_memory_says_whether_the_11b_fits(capsys, monkeypatch, memory, text):
    found = [Device("cuda:0", "A GPU", None if memory is None else int(memory))]
    monkeypatch.setattr(devices, "find_devices", lambda: found)
    _, lines = doctor(capsys)
    assert any("cuda:0: A GPU" in line and text in line for line in lines)


def test_a_torch_that_is_missing_or_broken_is_told(capsys, monkeypatch):
    def broken():
        raise OSError("libtorch.so: no such file")

    monkeypatch.setattr(devices, "find_devices", broken)
    code, lines = doctor(capsys)
    assert code == 1
    assert any("can't be imported: libtorch.so" in line for line in lines)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    code, lines = doctor(capsys)
    assert code == 0
    assert any("torch is not installed" in line for line in lines)


def test_nothing_is_sent_unless_asked_for_and_then_no_key(capsys, emulator, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("DEEPINFRA_TOKEN", KEY)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        unused = listening.getsockname()[1]
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{emulator.port}")
    code, lines = doctor(capsys)
    assert (code, emulator.requests) == (0, [])
    code, lines = doctor(capsys, "--reach", "ollama", "local")
    assert code == 0
    assert any("ollama: 127.0.0.1 answers (status " in line for line in lines)
    assert "ok      local: runs in this process" in lines
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{unused}")
    code, lines = doctor(capsys, "--reach", "ollama")
    assert code == 1
    assert any("no connection to 127.0.0.1" in line and "ollama" in line for line in lines)


def test_an_unknown_provider_is_wrong_usage(capsys):
    assert main(["doctor", "--reach", "deepinfa"]) == 2
    assert "no provider 'deepinfa'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_devices_of_this_machine_end_with_its_processor():
    *_, processor = FIND_DEVICES()
    assert processor.name == "cpu"
    assert processor.memory_bytes is None or processor.memory_bytes > 1e8

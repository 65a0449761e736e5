"""Completion in a real bash: what Tab makes of the beginning of a command."""

import os
import pty
import shutil
import subprocess
import sys

import pytest

from llama_vision.cli import main
from llama_vision.providers import PROVIDERS

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    done = subprocess.run(
        [sys.executable, "-m", "llama_vision", "completion", "bash"], capture_output=True, check=True
    )
    (folder / "script").write_bytes(done.stdout)
    for name in ("circle.png", "sign.png", "report.pdf"):
        (folder / name).touch()
    (folder / "photos").mkdir()
    return folder / "script"


def press(script, keys):
    """Type keys into an interactive bash, in the script's folder; give the arguments that the command got."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-i"],  # noqa: S607 - wherever it is
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=script.parent,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "$ "},
    ) as process:
        os.close(terminal)
        arguments = script.parent / "arguments"
        lines = (
            f"source ./{script.name}",
            f"llama-vision() {{ printf '%s\\n' \"$@\" > {arguments}; }}",
            f"llama-vision {keys}",
            "exit",
        )
        os.write(controller, "".join(f"{line}\n" for line in lines).encode())
        while True:
            try:
                if not os.read(controller, 4096):
                    break
            except OSError:  # as Linux says that the other end is closed
                break
        process.wait(timeout=30)
    os.close(controller)
    return arguments.read_text().splitlines()


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ("capt\tpho\t --ou\tca\t", ["caption", "photos/", "--out", "ca"]),
        (
            "ask --provi\tdeep\tci\t 'What is it?'",
            ["ask", "--provider", "deepinfra", "circle.png", "What is it?"],
        ),
        (
            "ask --image-p\tgr\tsi\trep\t Why",
            ["ask", "--image-policy", "grid", "sign.png", "report.pdf", "Why"],
        ),
        ("local \tpho\t", ["local", "check", "photos/"]),
        ("accept-l\tcloudflare-\t--y\t", ["accept-license", "cloudflare-openai", "--yes"]),
        ("ask --model llama-3.2-9\tHi", ["ask", "--model", "llama-3.2-90b-vision", "Hi"]),
        ("serve --model pho\t", ["serve", "--model", "photos/"]),
    ],
)
def test_tab_completes(script, keys, arguments):
    assert press(script, keys) == arguments


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "powershell"])
def test_each_shell_has_a_script_with_all_providers(shell, capsys):
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert "llama-vision" in printed
    assert all(name in printed for name in PROVIDERS)
    assert "accept-license" in printed


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "cmd.exe"])
    assert "bash" in capsys.readouterr().err

"""Every `llama-vision` and `make` of README and docs works, the first by running it.

Where a command speaks to a provider, an emulator of that provider on this machine answers, at `--base-url`; where it wants
a server of the reader's own, one stands there in its place.
"""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
from tests.docs.markdown import CONTRIBUTING, PAGES, README, ROOT, commands
from tests.docs.test_docs_python import ENVIRONMENT
from tests.emulator import ACCOUNT_ID
from tests.emulator.dialects import DIALECTS
from tests.images.damaged import tiff_of
from tests.images.images import sketch
from tests.pdfs import text_pdf

TYPED = [(path, command) for path in (README, CONTRIBUTING, *PAGES) for command in commands(path)]
OURS = list(dict.fromkeys(command for _, command in TYPED if command.startswith("llama-vision ")))
SERVERS = [command for command in OURS if command.split()[1] == "serve"]
OURS = [command for command in OURS if command not in SERVERS]
IMAGES_NAMED = {
    "image.png": "circle",
    "a.png": "circle",
    "b.jpg": "shapes",
    "photos/circle.png": "circle",
}


@pytest.fixture
def folder(tmp_path):
    """What the commands name."""
    for name, image in IMAGES_NAMED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(SAMPLE_IMAGES[image], tmp_path / name)
    (tmp_path / "report.pdf").write_bytes(text_pdf(*"1234"))
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/report.pdf").write_bytes(text_pdf("1"))
    (tmp_path / "scan.tiff").write_bytes(tiff_of(sketch(), sketch()))
    return tmp_path


def asked(words):
    """Give the provider that a command names, of several the first."""
    return next(
        (words[place + 1].split(",")[0] for place, word in enumerate(words) if word == "--provider"), None
    )


def at_emulator(words, emulator_of):
    """Put an emulator in a provider's place; give the command and what the environment needs."""
    provider = "cloudflare" if words[:2] == ["accept-license", "cloudflare"] else asked(words)
    if provider is None:
        return words, {}
    emulator = emulator_of(provider)
    if "--provider" in words:  # an address is that of one provider
        words = [*words]
        words[words.index("--provider") + 1] = provider
    if provider == "cloudflare":
        emulator.dialect.license_accepted = False
    if "--base-url" in words:
        place = words.index("--base-url")
        words = words[:place] + words[place + 2 :]
    key = find_provider(provider).key_env[0]
    env = {key: emulator.api_key, "CLOUDFLARE_ACCOUNT_ID": ACCOUNT_ID}
    if provider == "openai-compatible":  # the emulator knows DeepInfra's names of the model only
        env["LLAMA_VISION_MODEL"] = find_provider("deepinfra").models[0].id
    return [*words, "--base-url", emulator.base_url], env


def loads_the_model(command):
    """Whether a command asks the local model, whose libraries take seconds to import."""
    words = shlex.split(command)
    return words[1] in {"ask", "caption"} and asked(words) is None


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(one, marks=[pytest.mark.slow] * (number > 0 and loads_the_model(one)))
        for number, one in enumerate(sorted(OURS, key=loads_the_model, reverse=True))
    ],
)
def test_a_command_works(command, folder, emulator_of):
    ours = re.split(r"[|>]", command)[0]  # a pipe or a file is the shell's
    words, env = at_emulator(shlex.split(ours)[1:], emulator_of)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "llama_vision.cli", *words],
        capture_output=True,
        check=False,
        cwd=folder,
        env={**ENVIRONMENT, **env},
        input=b"y\n",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()
    written = [path for word in words if word.endswith(".jsonl") for path in folder.glob(word)]
    assert done.stdout or written


def test_the_providers_that_commands_name_are_emulated():
    named = {provider for command in OURS if (provider := asked(shlex.split(command)))}
    assert named <= set(DIALECTS)


def test_what_make_is_asked_for_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = "".join(path.read_text(encoding="utf-8") for path in (README, CONTRIBUTING, *PAGES))
    asked_for = {
        name for pair in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", pages, re.MULTILINE) for name in pair
    }
    assert asked_for - {""} <= targets


def test_commands_are_found():
    assert len(OURS) > 8


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVERS)
def test_a_server_starts(command):
    """With the tiny model in place of the 11B, which is not here, and on a free port."""
    words = shlex.split(command)[1:]
    for option, here in (("--model", "tiny"), ("--port", "0")):
        if option in words:
            words[words.index(option) + 1] = here
        else:
            words += [option, here]
    started = [sys.executable, "-W", "error", "-m", "llama_vision.cli", *words]
    with subprocess.Popen(started, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("Serving tiny at http://localhost:")
        process.terminate()
        assert process.wait(30) == 0

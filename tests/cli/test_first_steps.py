"""What somebody who does not know the command line yet types first, run as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llama_vision.cli import main
from llama_vision.demo import SAMPLE_IMAGES
from tests.cli.test_ask import CLEAN, run
from tests.cli.test_caption import command, environment
from tests.emulator import STALL, Answer, completion

CIRCLE = SAMPLE_IMAGES["circle"]


def test_the_command_alone_prints_the_help():
    done = run()
    assert done.returncode == 0
    assert b"COMMAND" in done.stdout
    assert b"ask" in done.stdout
    assert done.stderr == b""


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "llama_vision", "--version"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"llama-vision ")


@pytest.fixture
def ask(emulator, monkeypatch):
    """Run `ask` in this process, with something piped in; returns the exit code."""
    monkeypatch.setenv("DEEPINFRA_TOKEN", emulator.api_key)

    def ask(words, stdin):
        reader, writer = os.pipe()
        os.write(writer, stdin)
        os.close(writer)
        with os.fdopen(reader) as opened:
            monkeypatch.setattr("sys.stdin", opened)
            return main(["ask", "--provider", "deepinfra", "--base-url", emulator.base_url, *map(str, words)])

    return ask


@pytest.mark.parametrize("words", [[CIRCLE], [CIRCLE, "-"]], ids=["nothing", "-"])
def test_the_question_may_be_piped_in(emulator, ask, words):
    assert ask(words, b"What is it?\n") == 0
    (request,) = emulator.requests
    assert request.images == [CIRCLE.read_bytes()]
    assert "What is it?" in json.dumps(request.body)


@pytest.mark.parametrize("words", [["What is it?"], ["-", "What is it?"]], ids=["nothing", "-"])
def test_an_image_may_be_piped_in(emulator, ask, words):
    assert ask(words, CIRCLE.read_bytes()) == 0
    assert emulator.requests[0].images == [CIRCLE.read_bytes()]


@pytest.mark.parametrize(
    ("words", "stdin", "text"),
    [
        ([CIRCLE], b"", "question is missing"),
        (["sqare.png"], b"", "question is missing"),
        (["http://example.com/image"], b"", "question is missing"),
        ([CIRCLE, CIRCLE], b" \n", "question is missing"),
        (["-", CIRCLE], CIRCLE.read_bytes(), "question is missing"),
        (["-", "-"], b"What?", "only one of the arguments"),
        (["What?"], b"a list of names", "This is not an image"),
        (["-", "What?"], b"", "Nothing is piped in"),
        ([CIRCLE, "-"], b"\xff\xfe\x00", "no text in UTF-8"),
    ],
)
def test_what_can_be_no_question_is_never_sent(emulator, ask, capsys, words, stdin, text):
    assert ask(words, stdin) == 2
    assert text in capsys.readouterr().err
    assert emulator.requests == []


def test_a_pipe_that_nobody_writes_into_is_left_alone(emulator):
    reader, writer = os.pipe()
    words = [
        "-m",
        "llama_vision",
        "ask",
        "--base-url",
        emulator.base_url,
        "--api-key",
        emulator.api_key,
        "Hi",
    ]
    try:
        done = subprocess.run(
            [sys.executable, *words], stdin=reader, env=CLEAN, timeout=60, check=False, capture_output=True
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0, done.stderr


def test_a_key_and_a_timeout_are_options(emulator):
    options = ["--base-url", emulator.base_url, "--api-key", emulator.api_key]
    assert run("ask", *options, "Hi").returncode == 0
    assert emulator.requests[0].headers["authorization"] == f"Bearer {emulator.api_key}"
    emulator.script(Answer((STALL,), status=None))
    done = run("ask", *options, "--timeout", "0.2", "--deadline", "0.5", "Hi")
    assert done.returncode == 1
    assert emulator.api_key not in done.stderr.decode()


def test_an_error_names_the_option_and_not_the_argument():
    done = run("ask", "--provider", "deepinfra", "Hi")
    assert "Pass --api-key, or set one of: DEEPINFRA" in done.stderr.decode()
    assert "api_key=" not in done.stderr.decode()


def test_providers_for_a_program():
    done = run("providers", "--json", env={"DEEPINFRA_TOKEN": "sk-made-up"})
    listed = {each["name"]: each for each in json.loads(done.stdout)}
    assert listed["deepinfra"]["key_found"] is True
    assert listed["groq"]["key_found"] is False
    assert listed["deepinfra"]["models"][0]["name"] == "llama-3.2-11b-vision"
    assert b"sk-made-up" not in done.stdout


def test_captions_to_stdout(emulator, tmp_path):
    emulator.always(completion("An image."))
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "circle.png").write_bytes(CIRCLE.read_bytes())
    done = subprocess.run(
        command(emulator, folder, "-"),
        env=environment(emulator),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["caption"] for line in done.stdout.splitlines()] == ["An image."]
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize("after_s", [0.5, pytest.param(1.5, marks=pytest.mark.slow)])
def test_ctrl_c_while_a_model_loads_is_quick_and_quiet(after_s):
    words = [sys.executable, "-m", "llama_vision", "ask", "Hi"]
    with subprocess.Popen(words, env=CLEAN, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stderr.readline() == b"Loading tiny ...\n"
        time.sleep(after_s)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        process.wait(timeout=30)
    if process.returncode:  # else it was faster
        assert (process.returncode, said) == (130, b"")
    assert time.monotonic() - began < 2


CLI = ("llama_vision",)
ASK = (*CLI, "ask", "Hi")
CAPTION = (*CLI, "caption", ".", "--out", "-")
CHECK = (*CLI, "local", "check", "tiny")
SERVE = (*CLI, "serve", "--port", "0")
DEMO = ("llama_vision.demo",)


def interrupt(words, folder, *, imported, after_s=0.0):
    """Send SIGINT once a module is imported and some time has passed; give exit code, seconds and stderr."""
    command = [sys.executable, "-X", "importtime", "-m", *words]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=CLEAN, cwd=folder, text=True, **pipes) as process:
        assert imported in (line.rpartition(" ")[2].strip() for line in process.stderr)
        time.sleep(after_s)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        lines = process.stderr.read().splitlines()
    said = [line for line in lines if not line.startswith(("import time:", "Loading tiny", "local | tiny"))]
    return process.returncode, time.monotonic() - began, said


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (ASK, "argparse"),
        (SERVE, "pydantic"),
        pytest.param(ASK, "torch.nn.functional", marks=pytest.mark.slow),
        pytest.param(CAPTION, "llama_vision.providers", marks=pytest.mark.slow),
        pytest.param(CHECK, "torch._C", marks=pytest.mark.slow),
        pytest.param(SERVE, "uvicorn.config", marks=pytest.mark.slow),
        pytest.param(SERVE, "torch.nn.modules", marks=pytest.mark.slow),
        pytest.param(DEMO, "langchain_core.messages", marks=pytest.mark.slow),
        pytest.param(DEMO, "torch._C", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_ctrl_c_while_imports_run_ends_at_once_without_a_traceback(tmp_path, words, module):
    code, seconds, said = interrupt(words, tmp_path, imported=module)
    assert (code, said) == (130, [])
    assert seconds < 3


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.05, 0.3, 1, 3])
@pytest.mark.parametrize("words", [ASK, CAPTION, CHECK, SERVE, DEMO], ids=" ".join)
def test_ctrl_c_is_quiet_at_any_moment(tmp_path, words, after_s):
    (tmp_path / "circle.png").write_bytes(CIRCLE.read_bytes())
    code, seconds, said = interrupt(words, tmp_path, imported="llama_vision.cli.interrupt", after_s=after_s)
    if code:  # else it was faster
        assert (code, said) == (130, [])
    assert seconds < 5


@pytest.mark.slow
def test_the_demo_stops_quietly_where_its_reader_is_gone():
    code = "import runpy; runpy.run_module('llama_vision.demo', run_name='__main__')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=CLEAN
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert said == b""

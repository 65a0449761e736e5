"""The command line, run as a user runs it."""

import json
import os
import re
import subprocess
import sys

import pytest

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import PROVIDERS
from tests.drawing import one_shape, png
from tests.emulator import ACCOUNT_ID, completion, refusal

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("LLAMA_VISION_", "DEEPINFRA_", "CLOUDFLARE_", "CF_"))
}


def run(*words, env=None, stdin=None):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "llama_vision.cli", *map(str, words)],
        capture_output=True,
        check=False,
        input=stdin,
        env={**CLEAN, **(env or {})},
        timeout=120,
    )


def hosted(emulator, *words):
    key = {"DEEPINFRA_TOKEN": emulator.api_key}
    return run("ask", "--provider", "deepinfra", "--base-url", emulator.base_url, *words, env=key)


@pytest.mark.slow
def test_a_freshly_drawn_circle(tmp_path):
    image, color, shape = one_shape(7)
    path = tmp_path / "drawn.png"
    path.write_bytes(png(image))
    done = run("ask", path, f"What color is the {shape}?")
    assert done.returncode == 0
    assert done.stdout.decode().strip() == color
    loading, summary = done.stderr.decode().splitlines()
    assert loading == "Loading tiny ..."
    provider, model, tokens, seconds = summary.split(" | ")
    assert (provider, model) == ("local", "tiny")
    assert tokens.endswith(" tokens")
    assert seconds.endswith(" s")


def test_tokens_are_printed_as_they_come(emulator, tmp_path):
    from tests.emulator import Wait, event_stream

    def piece(text):
        return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}

    emulator.script(event_stream(piece("One "), Wait(3), piece("two"), "[DONE]"))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "llama_vision.cli", "ask", "--provider", "openai-compatible"),
            *("--model", "meta-llama/Llama-3.2-11B-Vision-Instruct", "--base-url", emulator.base_url, "Hi"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**CLEAN, "LLAMA_VISION_API_KEY": emulator.api_key},
    )
    first = os.read(process.stdout.fileno(), 100)
    assert first == b"One "
    rest, _ = process.communicate(timeout=30)
    assert rest == b"two\n"


def test_options_arrive_and_the_last_line_tells_the_cost(emulator):
    done = hosted(
        emulator,
        "--system",
        "Be brief.",
        "--max-tokens",
        50,
        "--temperature",
        0,
        SAMPLE_IMAGES["circle"],
        "What is it?",
    )
    assert (done.returncode, done.stdout) == (0, b"I see 1 image(s).\n")
    assert done.stderr.decode().startswith("deepinfra | meta-llama/Llama-3.2-11B-Vision-Instruct | ")
    assert " | $0.00" in done.stderr.decode()
    body = emulator.requests[0].body
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], body["temperature"], body["stream"]) == (50, 0, True)


def test_no_stream_and_json(emulator):
    assert hosted(emulator, "--no-stream", "Hi").stdout == b"Hello! How can I help you today?\n"
    found = json.loads(hosted(emulator, "--json", "--model", "llama-3.2-90b-vision", "Hi").stdout)
    assert found["text"] == "Hello! How can I help you today?"
    assert found["provider"] == "deepinfra"
    assert found["finish_reason"] == "stop"
    assert found["cost_usd"] > 0
    assert found["cost_is_estimate"] is False
    assert all("stream" not in request.body for request in emulator.requests)


def test_a_cut_answer_says_so(emulator):
    emulator.script(completion("A cat sits", finish_reason="length"))
    assert "cut at --max-tokens 1024" in hosted(emulator, "Hi").stderr.decode()


def test_a_image_from_the_input(emulator):
    done = run(
        *("ask", "--provider", "deepinfra", "--base-url", emulator.base_url, "-", "What?"),
        env={"DEEPINFRA_TOKEN": emulator.api_key},
        stdin=SAMPLE_IMAGES["circle"].read_bytes(),
    )
    assert done.stdout == b"I see 1 image(s).\n"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["ask", "nope.png", "What?"], 2, "nope.png"),
        (["ask", __file__, "What?"], 2, "not an image"),
        (["ask", "--provider", "nope", "Hi"], 2, "local, deepinfra, aimlapi, aigateway, "),
        (["ask", "--provider", "deepinfra", "Hi"], 2, "DEEPINFRA_TOKEN"),
        (["ask", "--provider", "openai-compatible", "Hi"], 2, "--base-url"),
        (["ask", "--max-tokens", "0", "Hi"], 2, "max_tokens=0"),
        (["ask", "--max-tokens", "many", "Hi"], 2, "invalid int"),
        (["ask"], 2, "IMAGE ... QUESTION"),
        (
            ["ask", "--provider", "openai-compatible", "--base-url", "http://127.0.0.1:1/v1", "Hi"],
            1,
            "No connection",
        ),
    ],
)
def test_errors_are_one_clear_line(words, code, text):
    done = run(*words)
    lines = done.stderr.decode().strip().splitlines()
    assert done.returncode == code
    assert text in lines[-1]
    assert "Traceback" not in done.stderr.decode()
    assert done.stdout == b""


def test_a_refused_call_ends_with_one(emulator):
    emulator.script(refusal(402))
    done = hosted(emulator, "Hi")
    assert (done.returncode, done.stdout) == (1, b"")
    assert "402" in done.stderr.decode()


def test_a_reader_that_leaves_is_no_error_to_shout_about():
    command = f"{sys.executable} -m llama_vision.cli providers | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, env=CLEAN)
    assert done.stderr == b""


def test_providers_are_listed_with_their_keys():
    found = {"DEEPINFRA_API_KEY": "sk-secret", "CF_ACCOUNT_ID": "account-secret"}
    shown = run("providers", env=found).stdout.decode()
    for provider in PROVIDERS.values():
        assert provider.name in shown
        assert all(model.id in shown for model in provider.models)
        assert all(name in shown for name in (*provider.key_env, *provider.account_env))
        assert all(model.deprecation in shown for model in provider.models)
    assert "found in DEEPINFRA_API_KEY" in shown
    assert "none found in LLAMA_VISION_API_KEY" in shown
    assert "account: found in CF_ACCOUNT_ID (looked at CLOUDFLARE_ACCOUNT_ID, CF_ACCOUNT_ID)" in shown
    assert "secret" not in shown


def test_the_table_has_a_row_for_each_provider_and_says_what_is_retired():
    shown = run("providers", "--markdown").stdout.decode()
    rows = dict(re.findall(r"^\| \[`(.+?)`\]\(\S+\) \| (.*) \|$", shown, re.MULTILINE))
    assert list(rows) == list(PROVIDERS)
    assert rows["local"].startswith("tiny, 11B, 90B | tiny: 2,048 |")
    assert "| 11B: reply 16,384<br>90B: 32,768, reply 16,384 |" in rows["deepinfra"]
    assert rows["aigateway"].startswith("11B | 128,000, reply 4,096 | 0.049 / 0.68 |")
    assert "account: `CLOUDFLARE_ACCOUNT_ID` or `CF_ACCOUNT_ID`" in rows["cloudflare"]
    assert rows["cloudflare-openai"].endswith("| none")
    assert rows["groq"].startswith("11B†, 90B† | 8,192 |")
    assert rows["fireworks"].endswith("30 at most, bmp gif jpeg png tiff, up to 7.5 MB together, or by URL")
    assert rows["nvidia"].endswith("one, jpeg png, up to 135 kB, or by URL")
    assert rows["hyperbolic"].endswith("one, jpeg png, sides up to 2048 px")
    assert rows["ollama"] == "11B†, 90B† |  |  | none | one a message, jpeg png webp"
    notes = shown.strip().splitlines()[-1]
    assert notes.startswith("† It may no longer answer. `aimlapi`: ")
    for name, provider in PROVIDERS.items():
        assert any(model.deprecation for model in provider.models) is (f"`{name}`: " in notes)


def test_version_and_help():
    assert run("--version").stdout.decode().startswith("llama-vision 0.")
    assert b"--base-url" in run("ask", "--help").stdout


def accept(emulator, *words, answer=b""):
    environment = {"CLOUDFLARE_API_TOKEN": emulator.api_key, "CLOUDFLARE_ACCOUNT_ID": ACCOUNT_ID}
    command = ("accept-license", "cloudflare", "--base-url", emulator.base_url, *words)
    return run(*command, env=environment, stdin=answer)


@pytest.mark.parametrize(("words", "answer"), [(["--yes"], b""), ([], b"y\n"), ([], b"Yes\n")])
@pytest.mark.slow_beyond(1)
def test_the_license_is_accepted_once_and_the_model_answers(emulator_of, words, answer):
    emulator = emulator_of("cloudflare")
    emulator.dialect.license_accepted = False
    done = accept(emulator, *words, answer=answer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"LICENSE" in done.stdout
    assert b"Accepted" in done.stdout
    assert emulator.dialect.license_accepted
    assert emulator.requests[0].body == {"prompt": "agree"}


@pytest.mark.parametrize("answer", [b"", b"n\n", b"\n"])
@pytest.mark.slow_beyond(1)
def test_without_a_yes_nothing_is_sent(emulator_of, answer):
    emulator = emulator_of("cloudflare")
    emulator.dialect.license_accepted = False
    done = accept(emulator, answer=answer)
    assert done.returncode == 2
    assert b"nothing was sent" in done.stderr
    assert b"Traceback" not in done.stderr
    assert emulator.requests == []


def test_a_license_nobody_asks_for_is_not_accepted():
    done = run("accept-license", "deepinfra", "--yes")
    assert done.returncode == 2
    assert b"asks for no license" in done.stderr


def test_a_license_that_is_missing_is_told_with_the_way_to_accept_it(emulator_of):
    emulator = emulator_of("cloudflare")
    emulator.dialect.license_accepted = False
    done = run(
        *("ask", "--provider", "cloudflare", "--base-url", emulator.base_url, "Hello!"),
        env={"CLOUDFLARE_API_TOKEN": emulator.api_key, "CLOUDFLARE_ACCOUNT_ID": ACCOUNT_ID},
    )
    assert done.returncode == 1
    assert b"llama-vision accept-license cloudflare" in done.stderr

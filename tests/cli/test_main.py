"""The commands through `main`, in this process, where their branches are measured; beside this, tests run them as a user does."""

import io
import json

import PIL.Image
import pytest

from llama_vision.cli import main
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import PROVIDERS
from tests.emulator import ACCOUNT_ID, completion, refusal


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key but those that a test sets."""
    for provider in PROVIDERS.values():
        for name in (*provider.key_env, *provider.account_env):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hosted(emulator, monkeypatch):
    monkeypatch.setenv("DEEPINFRA_TOKEN", emulator.api_key)
    return ["--provider", "deepinfra", "--base-url", emulator.base_url]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name, color in (("red", "red"), ("more/blue", "blue"), ("again", "red")):
        PIL.Image.new("RGB", (40, 30), color).save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


def test_a_reply_is_streamed_and_a_line_tells_what_it_took(emulator, hosted, capsys):
    assert main(["ask", *hosted, "--max-tokens", "3", str(SAMPLE_IMAGES["circle"]), "What is it?"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "I see 1\n"
    assert emulator.requests[0].streamed
    assert emulator.requests[0].images == [SAMPLE_IMAGES["circle"].read_bytes()]
    summary = printed.err.strip().split(" | ")
    assert summary[0] == "deepinfra"
    assert summary[-1] == "cut at --max-tokens 3"


def test_a_whole_reply_to_an_image_on_stdin(emulator, hosted, capsys, monkeypatch):
    image = SAMPLE_IMAGES["circle"].read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(image)))
    assert main(["ask", *hosted, "--no-stream", "--system", "Be brief.", "-", "What is it?"]) == 0
    assert capsys.readouterr().out == "I see 1 image(s).\n"
    (request,) = emulator.requests
    assert not request.streamed
    assert request.images == [image]
    assert request.body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_reply_as_json(emulator, hosted, capsys):
    emulator.script(completion("Hi", usage={"prompt_tokens": 21, "completion_tokens": 3}))
    assert main(["ask", *hosted, "--json", "Hello!"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["text"], found["provider"], found["input_tokens"], found["output_tokens"]) == (
        "Hi",
        "deepinfra",
        21,
        3,
    )
    assert printed.err == ""


@pytest.mark.parametrize(("status", "code"), [(400, 1), (401, 1)], ids=["a refused request", "a refused key"])
def test_a_refused_call_ends_with_one(emulator, hosted, capsys, status, code):
    emulator.script(refusal(status))
    assert main(["ask", *hosted, "Hello!"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("llama-vision: ")
    assert printed.err.count("\n") == 1
    assert emulator.api_key not in printed.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ask", "--provider", "nowhere", "Hello!"], "nowhere"),
        (["ask", "--provider", "deepinfra", "Hello!"], "DEEPINFRA_TOKEN"),
        (["ask", "missing.png", "Hello!"], "missing.png"),
        (["accept-license", "deepinfra", "--yes"], "asks for no license"),
    ],
)
def test_wrong_use_ends_with_two(capsys, words, text):
    assert main(words) == 2
    assert text in capsys.readouterr().err


def test_a_folder_is_captioned_once_and_copies_share_a_caption(emulator, hosted, folder, tmp_path, capsys):
    emulator.always(lambda received: completion(f"An image of {len(received.images[0])} bytes."))
    out = tmp_path / "captions.jsonl"
    command = ["caption", str(folder), "--out", str(out), *hosted, "--concurrency", "2"]
    assert main(command) == 0
    assert "3 captions, 2 new" in capsys.readouterr().err
    lines = {line["file"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert set(lines) == {"again.png", "more/blue.png", "red.png"}
    assert lines["again.png"]["caption"] == lines["red.png"]["caption"]
    assert main(command) == 0
    assert "3 captions, 0 new" in capsys.readouterr().err
    assert len(emulator.requests) == 2


def test_an_image_without_a_caption_is_listed(emulator, hosted, folder, tmp_path, capsys):
    (folder / "broken.png").write_bytes(SAMPLE_IMAGES["circle"].read_bytes()[:60])
    emulator.always(completion("An image."))
    assert main(["caption", str(folder), "--out", str(tmp_path / "captions.jsonl"), *hosted]) == 1
    printed = capsys.readouterr().err
    assert "failed: " in printed
    assert "broken.png" in printed
    assert "1 of 4 images have no caption" in printed


def test_a_key_that_is_refused_ends_the_captions_and_is_told_once(emulator, hosted, folder, tmp_path, capsys):
    emulator.always(refusal(401))
    assert main(["caption", str(folder), "--out", str(tmp_path / "captions.jsonl"), *hosted]) == 1
    printed = capsys.readouterr().err
    assert "failed: " not in printed
    assert printed.count("llama-vision: ") == 1


def test_a_folder_without_images(hosted, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["caption", str(tmp_path / "empty"), "--out", str(tmp_path / "c.jsonl"), *hosted]) == 2
    assert "no images" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "accepted"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_license_is_accepted_after_a_yes(emulator_of, monkeypatch, capsys, answer, accepted):
    emulator = emulator_of("cloudflare")
    emulator.dialect.license_accepted = False
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", emulator.api_key)
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", ACCOUNT_ID)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert main(["accept-license", "cloudflare", "--base-url", emulator.base_url]) == (0 if accepted else 2)
    assert emulator.dialect.license_accepted is accepted
    printed = capsys.readouterr()
    assert ("Accepted" in printed.out) is accepted
    assert ("nothing was sent" in printed.err) is not accepted


@pytest.mark.parametrize("key", [None, "sk-31415926"])
def test_providers_are_listed_and_no_key_is_printed(monkeypatch, capsys, key):
    if key:
        monkeypatch.setenv("DEEPINFRA_TOKEN", key)
    assert main(["providers"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in PROVIDERS)
    assert "sk-31415926" not in printed

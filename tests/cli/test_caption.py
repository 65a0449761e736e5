"""`llama-vision caption`, run as a user runs it: a folder becomes a file of captions, whatever happens on the way."""

import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys

import PIL.Image
import pytest

from llama_vision.llamaindex import LlamaVision, caption_images
from tests.emulator import Answer, Wait, completion

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("LLAMA_VISION_", "DEEPINFRA_", "CLOUDFLARE_", "CF_"))
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "captions.jsonl"


def draw(folder, count, first=0):
    """Draw so many images, each of another colour."""
    paths = [folder / f"{number:03}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        file = io.BytesIO()
        PIL.Image.new("RGB", (40, 30), (number, 255 - number, 90)).save(file, "PNG")
        path.write_bytes(file.getvalue())
    return paths


def color_of(image):
    red, _, _ = PIL.Image.open(io.BytesIO(image)).convert("RGB").getpixel((0, 0))
    return f"Red is {red}."


def naming(received):
    """Say something that depends on the image."""
    return completion(color_of(received.images[0]))


def slowly(received):
    """As `naming`, after a while."""
    body = json.dumps(naming(received)).encode()
    return Answer((Wait(0.1), body), headers={"content-type": "application/json"})


def command(emulator, folder, out, *words):
    hosted = ("--provider", "deepinfra", "--base-url", emulator.base_url)
    return [
        *(sys.executable, "-W", "error", "-m", "llama_vision.cli", "caption"),
        *map(str, (folder, "--out", out, *hosted, *words)),
    ]


def environment(emulator):
    return {**CLEAN, "DEEPINFRA_TOKEN": emulator.api_key}


def caption(emulator, folder, out, *words, code=0, env=None):
    done = subprocess.run(
        command(emulator, folder, out, *words),
        capture_output=True,
        check=False,
        text=True,
        env=env or environment(emulator),
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def lines_of(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_each_image_becomes_a_line_with_what_it_took(emulator, folder, out):
    emulator.always(naming)
    paths = draw(folder, 3)
    (folder / "deeper").mkdir()
    paths += draw(folder / "deeper", 1, first=3)
    (folder / "notes.md").write_text("words")
    said = caption(
        emulator, folder, out, "--prompt", "What is it?", "--system", "Be brief.", "--max-tokens", 50
    )
    lines = {line["file"]: line for line in lines_of(out)}
    assert sorted(lines) == ["000.png", "001.png", "002.png", "deeper/003.png"]
    for path in paths:
        line = lines[path.relative_to(folder).as_posix()]
        assert line["caption"] == color_of(path.read_bytes())
        assert line["model"] == "deepinfra/meta-llama/Llama-3.2-11B-Vision-Instruct"
        assert (line["input_tokens"], line["output_tokens"], line["cut"]) == (15, 3, False)
        assert line["cost_usd"] == pytest.approx(18 * 0.055e-6)
        assert line["cost_is_estimate"] is False
        assert 0 < line["seconds"] < 60
    assert said.startswith("1 file passed over: notes.md\n4 captions, 4 new | ")
    assert said.endswith(" s | $0.000004\n")
    body = emulator.requests[0].body
    system, user = body["messages"]
    assert (system["content"], body["max_tokens"]) == ("Be brief.", 50)
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][1]["text"] == "What is it?"


@pytest.mark.slow
def test_killed_twice_it_ends_with_one_line_each_and_only_those_on_their_way_asked_again(
    emulator, folder, out
):
    emulator.always(slowly)
    paths, at_once = draw(folder, 60), 4
    words = command(emulator, folder, out, "--concurrency", at_once)
    for enough in (17, 35):
        with subprocess.Popen(words, env=environment(emulator), stderr=subprocess.DEVNULL) as process:
            assert emulator.wait_for_requests(enough, timeout=60)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        kept = len(lines_of(out))
        assert enough - 2 * at_once <= kept < 60
    said = caption(emulator, folder, out, "--concurrency", at_once)
    assert said.startswith(f"60 captions, {60 - kept} new | ")
    lines = lines_of(out)
    assert len(lines) == 60
    assert {line["file"]: line["caption"] for line in lines} == {
        path.name: color_of(path.read_bytes()) for path in paths
    }
    asked = len(emulator.requests)
    assert 60 < asked <= 60 + 2 * at_once
    before = out.read_bytes()
    assert caption(emulator, folder, out).startswith("60 captions, 0 new | ")
    assert (out.read_bytes(), len(emulator.requests)) == (before, asked)


def test_ctrl_c_keeps_what_is_done(emulator, folder, out):
    emulator.always(slowly)
    draw(folder, 40)
    words = command(emulator, folder, out, "--concurrency", 2)
    with subprocess.Popen(words, env=environment(emulator), stderr=subprocess.PIPE) as process:
        assert emulator.wait_for_requests(7, timeout=60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.decode() == f"Interrupted. What is done is in {out}; the same command goes on from there.\n"
    kept = len(lines_of(out))
    assert 4 <= kept < 30
    assert caption(emulator, folder, out).startswith(f"40 captions, {40 - kept} new | ")


def test_failures_are_listed_and_asked_about_again(emulator, folder, out):
    paths = draw(folder, 5)
    refused, whole = paths[1].read_bytes(), paths[3].read_bytes()
    paths[3].write_bytes(b"<!doctype html><p>Not found")

    def answer(received):
        return emulator.refusal(400, "I won't") if received.images[0] == refused else naming(received)

    emulator.always(answer)
    said = caption(emulator, folder, out, code=1).splitlines()
    assert said[0].startswith(f"failed: {paths[1]}: ")
    assert "I won't" in said[0]
    assert said[1].startswith(f"failed: {paths[3]}: This is not an image")
    assert said[2].startswith("3 captions, 3 new | ")
    assert said[3].startswith("llama-vision: 2 of 5 images have no caption.")
    assert len(lines_of(out)) == 3
    emulator.always(naming)
    paths[3].write_bytes(whole)
    assert caption(emulator, folder, out).startswith("5 captions, 2 new | ")
    assert sorted(line["file"] for line in lines_of(out)) == [path.name for path in paths]


def test_a_wrong_key_ends_it_and_is_said_once(emulator, folder, out):
    draw(folder, 30)
    wrong = {**CLEAN, "DEEPINFRA_TOKEN": "wrong-key"}
    said = caption(emulator, folder, out, "--concurrency", 3, code=1, env=wrong)
    assert len(emulator.requests) <= 3
    summary, complaint = said.splitlines()
    assert summary.startswith("0 captions, 0 new | ")
    assert complaint.startswith("llama-vision: ")
    assert "401" in complaint
    assert "wrong-key" not in said


def test_without_a_key_it_is_wrong_use(emulator, folder, out):
    draw(folder, 3)
    _, complaint = caption(emulator, folder, out, code=2, env=CLEAN).splitlines()
    assert "DEEPINFRA_TOKEN" in complaint
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--concurrency", "0"], "at least 1"),
        (["--max-tokens", "0"], "max_tokens=0"),
        (["--provider", "nope"], "nope"),
        (["--provider", "cloudflare-openai"], "takes no images"),
        (["--concurrency", "many"], "invalid int"),
    ],
)
def test_wrong_use_is_one_clear_line_before_anything_is_asked_or_written(emulator, folder, out, words, text):
    draw(folder, 3)
    said = caption(emulator, folder, out, *words, code=2)
    assert text in said.splitlines()[-1]
    assert emulator.requests == []
    assert not out.exists()


def test_a_folder_that_is_not_there_or_holds_no_images(emulator, folder, out):
    assert "no folder or image" in caption(emulator, folder / "nowhere", out, code=2)
    (folder / "notes.md").write_text("words")
    assert "no images in" in caption(emulator, folder, out, code=2)
    assert not out.exists()


def test_another_file_is_not_written_to(emulator, folder, out):
    draw(folder, 1)
    out.write_text("a;b\n1;2\n")
    assert "holds no captions" in caption(emulator, folder, out, code=2)
    assert out.read_text() == "a;b\n1;2\n"
    assert emulator.requests == []


@pytest.mark.slow
def test_copies_and_renamed_images_have_lines_and_are_not_asked_about(emulator, folder, out):
    emulator.always(naming)
    (path,) = draw(folder, 1)
    (folder / "copy.png").write_bytes(path.read_bytes())
    assert caption(emulator, folder, out).startswith("2 captions, 1 new | ")
    path.rename(folder / "renamed.png")
    for _ in range(2):
        assert caption(emulator, folder, out).startswith("2 captions, 0 new | ")
    lines = {line["file"]: line["caption"] for line in lines_of(out)}
    assert len(lines_of(out)) == len(lines) == 3
    assert len(set(lines.values())) == len(emulator.requests) == 1
    assert "cost_usd" not in lines_of(out)[1]  # it took nothing


def test_a_single_image_the_file_beside_it_and_a_cut_caption(emulator, folder):
    emulator.script(completion("A cat on", finish_reason="length"))
    (path,) = draw(folder, 1)
    assert "1 cut at --max-tokens" in caption(emulator, path, folder / "captions.jsonl")
    assert lines_of(folder / "captions.jsonl")[0]["file"] == "000.png"
    assert caption(emulator, folder, folder / "captions.jsonl").startswith("1 captions, 0 new | ")


@pytest.mark.parametrize(
    "words", [["--prompt", "Other words?"], ["--model", "llama-3.2-90b-vision"], ["--temperature", "0"]]
)
@pytest.mark.slow_beyond(1)
def test_another_question_is_asked_again(emulator, folder, out, words):
    draw(folder, 1)
    caption(emulator, folder, out)
    assert caption(emulator, folder, out, *words).startswith("1 captions, 1 new | ")
    assert len(lines_of(out)) == 2


@pytest.mark.slow
def test_caption_images_knows_these_captions_and_makes_nodes_of_them(emulator, folder, out):
    emulator.always(naming)
    paths = draw(folder, 3)
    caption(emulator, folder, out, "--temperature", "0.5")
    llm = LlamaVision(
        provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key, temperature=0.5
    )
    found = caption_images(folder, llm, resume=out, progress=False)
    assert (len(found.nodes), found.num_asked, len(emulator.requests)) == (3, 0, 3)
    assert [node.text for node in found.nodes] == [color_of(path.read_bytes()) for path in paths]


def on_a_terminal(words, env):
    """Run with a terminal as stderr; give the exit code and what was drawn."""
    here, there = pty.openpty()
    with subprocess.Popen(words, env=env, stderr=there) as process:
        os.close(there)
        drawn = b""
        try:
            while piece := os.read(here, 10_000):
                drawn += piece
        except OSError:  # so Linux says that nobody is at the other end any more
            pass
    os.close(here)
    return process.returncode, drawn.decode()


def test_a_terminal_is_shown_how_far_it_is_how_fast_and_at_what_cost(emulator, folder, out):
    emulator.always(slowly)
    draw(folder, 6)
    (folder / "broken.png").touch()
    words = command(emulator, folder, out, "--concurrency", 1)
    code, drawn = on_a_terminal(words, {**environment(emulator), "COLUMNS": "100"})
    assert code == 1
    states = [state.split(" | ") for state in drawn.partition("\r\n")[0].split("\r")[1:]]
    done, rate, left, cost, failed = (fact.strip() for fact in states[-1])
    assert (done, left, failed) == ("7 of 7", "0:00 left", "1 failed")
    assert 1 < float(rate.removesuffix(" a second")) < 10
    assert cost == "$0.000006"
    assert len(states) > 3
    assert all(len(" | ".join(state)) == 99 for state in states)


def test_it_needs_no_framework(emulator, folder, out):
    draw(folder, 1)
    words = command(emulator, folder, out)[5:]  # without Python and the module
    code = f"""
import sys
from llama_vision.cli import main
status = main({words!r})
loaded = {{name.split(".")[0] for name in sys.modules}}
print(status, sorted({{"langchain_core", "llama_index", "tqdm", "torch"}} & loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(emulator)
    )
    assert done.stdout == "0 []\n", done.stderr
    assert len(lines_of(out)) == 1


def test_a_full_disk_ends_the_run_and_says_so(emulator, folder, out):
    emulator.always(naming)
    draw(folder, 100)
    words = shlex.join(command(emulator, folder, out, "--concurrency", 2))
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -f 4; {words}"],  # blocks of 1,024 bytes
        capture_output=True,
        check=False,
        text=True,
        env=environment(emulator),
        timeout=60,
    )
    kept = out.read_bytes().count(b"\n")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("can't be written to the file: File too large. Make room on the disk") == 1
    assert 5 < kept < len(emulator.requests) <= kept + 2
    said = caption(emulator, folder, out)
    assert said.startswith(f"100 captions, {100 - kept} new | ")


@pytest.mark.slow
def test_a_second_run_on_the_same_file_is_refused(emulator, folder, out):
    emulator.always(slowly)
    draw(folder, 20)
    with subprocess.Popen(
        command(emulator, folder, out, "--concurrency", 1), env=environment(emulator), stderr=subprocess.PIPE
    ) as first:
        assert emulator.wait_for_requests(2, timeout=60)
        assert "Another run is writing its captions" in caption(emulator, folder, out, code=2)
        first.communicate()
    assert (first.returncode, len(emulator.requests), len(lines_of(out))) == (0, 20, 20)

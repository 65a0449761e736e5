"""Captions through a provider's batch API: wherever a run is stopped, the next goes on, asks nothing twice and loses nothing."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from llama_vision.captions import batches as module
from llama_vision.core.errors import (
    BatchError,
    BudgetExceededError,
    ConfigurationError,
    InvalidRequestError,
    LlamaVisionError,
    MissingKeyError,
    UnsupportedInputError,
)
from llama_vision.llamaindex import acaption_images, caption_images
from tests.captions.captioning import draw, model_at, naming, said_of
from tests.cli.test_caption import CLEAN, color_of
from tests.cli.test_caption import draw as draw_colors
from tests.emulator import HANG_UP, NO_ANSWER, Answer, completion

CREATE, UPLOAD = "POST /batches", "POST /files"
HALF = Answer((b'{"custom_id": "0", ', HANG_UP), headers={"content-length": "999"})
STAGES = (
    "before upload",
    "after upload",
    "before create",
    "after create",
    "while running",
    "while downloading",
)


def hidden(log):
    return log.with_name(f".{log.name}.batches")


def batched(paths, llm, log, **options):
    return caption_images(paths, llm, resume=log, batch=True, progress=False, **options)


def asked(emulator):
    """How often each image was asked about in all batches."""
    return Counter(image for line in emulator.dialect.batches.asked for image in line.images)


def interrupt(emulator, stage, act):
    """Have `act(call)` called at a stage, once; what it returns is the answer."""
    batches, left = emulator.dialect.batches, [stage]

    def at(when):
        def hook(call):
            kind = {UPLOAD: "upload", CREATE: "create"}.get(call, "")
            kind = kind or ("running" if call.startswith("GET /batches/") else "downloading")
            named = f"{when} {kind}" if kind in ("upload", "create") else f"while {kind}"
            if left and named == stage and (when == "before" or kind in ("upload", "create")):
                left.pop()
                return act()
            return None

        return hook

    batches.before, batches.after = at("before"), at("after")


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_breaks_off_anywhere_is_gone_on_with(emulator, folder, tmp_path, stage):
    emulator.always(naming)
    paths, log = draw(folder, 5), tmp_path / "captions.jsonl"
    llm = model_at(emulator)
    # Neither answers nor lists: as if the process ended here.
    interrupt(emulator, stage, lambda: HALF if stage == "while downloading" else NO_ANSWER)
    if stage == "after create":
        emulator.dialect.batches.after = lambda call: NO_ANSWER if call in (CREATE, "GET /batches") else None
    if stage == "while running":  # which it outlasts
        assert len(batched(folder, llm, log).nodes) == 5
    else:
        with pytest.raises(LlamaVisionError):
            batched(folder, llm, log)
        emulator.dialect.batches.after = lambda call: None
        captions = batched(folder, llm, log)
        assert (captions.num_asked, captions.failures) == (5, [])
        assert [node.text for node in captions.nodes] == [said_of(path) for path in paths]
    assert set(asked(emulator).values()) == {1}
    assert len(asked(emulator)) == 5
    assert not hidden(log).exists()
    assert batched(folder, llm, log).num_asked == 0
    assert len(emulator.dialect.batches.batches) == 1


def test_a_run_that_is_cancelled_while_it_waits_is_gone_on_with(emulator, folder, tmp_path):
    emulator.always(naming)
    draw(folder, 3)
    log = tmp_path / "captions.jsonl"
    emulator.dialect.batches.looks = 3

    async def begin():
        async with asyncio.timeout(0.35):
            await acaption_images(folder, model_at(emulator), resume=log, batch=True, progress=False)

    with pytest.raises(TimeoutError):
        asyncio.run(begin())
    (job,) = json.loads(hidden(log).read_text())
    assert job["batch_id"] == "batch_1"
    assert emulator.api_key not in hidden(log).read_text()
    # An image that came since is asked about in another batch.
    draw(folder, 1, first=3)
    assert len(batched(folder, model_at(emulator), log).nodes) == 4
    assert set(asked(emulator).values()) == {1}
    assert len(emulator.dialect.batches.batches) == 2


def test_copies_are_asked_about_once_and_known_ones_not_at_all(emulator, folder, tmp_path):
    emulator.always(naming)
    paths, log = draw(folder, 3), tmp_path / "captions.jsonl"
    (folder / "copy.png").write_bytes(paths[0].read_bytes())
    caption_images(paths[2], model_at(emulator), resume=log, progress=False)
    captions = batched(folder, model_at(emulator), log)
    assert (len(captions.nodes), captions.num_asked) == (4, 2)
    assert len(asked(emulator)) == 2


def test_failures_are_rows_and_asked_about_by_the_next_run(emulator, folder, tmp_path):
    paths, log = draw(folder, 3), tmp_path / "captions.jsonl"
    (folder / "broken.png").write_bytes(b"no image")
    emulator.script(emulator.refusal(400, "Too odd"), completion("  "), completion("Fine."))
    captions = batched(folder, model_at(emulator), log)
    assert [node.text for node in captions.nodes] == ["Fine."]
    by_name = {failure.path.name: failure.error for failure in captions.failures}
    assert isinstance(by_name[paths[2].name], InvalidRequestError)
    assert "said nothing" in str(by_name[paths[1].name])
    assert "broken.png" in by_name
    emulator.always(naming)
    assert batched(folder, model_at(emulator), log).num_asked == 2


def test_more_images_than_a_batch_takes_are_several_batches(emulator_of, folder, tmp_path):
    emulator = emulator_of("aigateway")
    emulator.always(naming)
    draw_colors(folder, 103)
    llm = model_at(emulator, provider="aigateway")
    captions = batched(folder, llm, tmp_path / "captions.jsonl")
    assert (len(captions.nodes), captions.num_asked) == (103, 103)
    assert len(emulator.dialect.batches.batches) == 2
    assert set(asked(emulator).values()) == {1}


def test_an_image_that_changes_meanwhile_is_told_and_the_paid_caption_kept(emulator, folder, tmp_path):
    emulator.always(naming)
    paths, log = draw(folder, 2), tmp_path / "captions.jsonl"

    def change(call):
        if call.startswith("GET /batches/"):
            (folder / "01.png").write_bytes(other)

    (other_path,) = draw(folder, 1, first=2)
    other = other_path.read_bytes()
    other_path.unlink()
    emulator.dialect.batches.before = change
    captions = batched(folder, model_at(emulator), log)
    assert [node.text for node in captions.nodes] == [said_of(paths[0])]
    (failure,) = captions.failures
    assert isinstance(failure.error, BatchError)
    assert "changed" in str(failure.error)
    assert len(log.read_text().splitlines()) == 2
    assert len(batched(folder, model_at(emulator), log).nodes) == 2


def test_batches_of_another_model_are_left_alone(emulator, folder, tmp_path):
    emulator.always(naming)
    draw(folder, 2)
    log = tmp_path / "captions.jsonl"
    interrupt(emulator, "before create", lambda: NO_ANSWER)
    with pytest.raises(LlamaVisionError):
        batched(folder, model_at(emulator), log)
    other = model_at(emulator, model="llama-3.2-90b-vision")
    assert len(batched(folder, other, log).nodes) == 2
    assert len(json.loads(hidden(log).read_text())) == 1
    assert len(batched(folder, model_at(emulator), log).nodes) == 2
    assert not hidden(log).exists()
    assert len(asked(emulator)) == 2
    assert sum(asked(emulator).values()) == 4


def test_what_cannot_be_is_refused_before_anything_is_sent(emulator, folder, tmp_path, monkeypatch):
    draw(folder, 1)
    log = tmp_path / "captions.jsonl"
    with pytest.raises(ConfigurationError, match="resumes"):
        caption_images(folder, model_at(emulator), batch=True, progress=False)
    with pytest.raises(UnsupportedInputError, match="batch"):
        batched(folder, model_at(emulator, provider="local", api_base=None, api_key=None), log)
    monkeypatch.delenv("DEEPINFRA_API_KEY", raising=False)
    monkeypatch.delenv("DEEPINFRA_TOKEN", raising=False)
    with pytest.raises(MissingKeyError):
        batched(folder, model_at(emulator, api_key=None), log)
    with pytest.raises(BudgetExceededError):
        batched(folder, model_at(emulator, max_cost_usd=0.0), log)
    hidden(log).write_text("{")
    with pytest.raises(ConfigurationError, match="batches under way"):
        batched(folder, model_at(emulator), log)
    assert not emulator.requests


def test_a_full_disk_keeps_the_batch(emulator, folder, tmp_path, monkeypatch):
    emulator.always(naming)
    draw(folder, 2)
    log = tmp_path / "captions.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(module.CaptionLog, "add", _disk_is_full)
        with pytest.raises(LlamaVisionError, match="Make room"):
            batched(folder, model_at(emulator), log)
    assert hidden(log).exists()
    assert len(batched(folder, model_at(emulator), log).nodes) == 2
    assert set(asked(emulator).values()) == {1}


def _disk_is_full(*_args, **_more):
    raise OSError(28, "No space left on device")


def command(folder, log, emulator):
    return [
        *(sys.executable, "-m", "llama_vision.cli", "caption", str(folder), "--out", str(log), "--batch"),
        *("--provider", "deepinfra", "--base-url", emulator.base_url, "--timeout", "60"),
    ]


def environment(emulator):
    return CLEAN | {"DEEPINFRA_API_KEY": emulator.api_key, "NO_PROXY": "127.0.0.1"}


def by_color(received):
    return completion(color_of(received.images[0]))


def test_the_command_tells_how_far_the_batch_is(emulator, tmp_path):
    emulator.always(by_color)
    folder, log = tmp_path / "images", tmp_path / "captions.jsonl"
    folder.mkdir()
    draw_colors(folder, 2)
    done = subprocess.run(
        command(folder, log, emulator), env=environment(emulator), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "batch_1: completed, 2 images" in done.stderr
    assert "2 captions, 2 new" in done.stderr
    assert emulator.api_key not in done.stderr + log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["file"]: line["caption"] for line in lines} == {
        "000.png": "Red is 0.",
        "001.png": "Red is 1.",
    }
    assert lines[0]["input_tokens"] > 0
    piped = subprocess.run(
        command(folder, "-", emulator), env=environment(emulator), capture_output=True, text=True, check=False
    )
    assert (piped.returncode, "resumes" in piped.stderr) == (2, True)


@pytest.mark.slow
def test_500_captions_survive_a_kill_at_every_stage(emulator, tmp_path):
    """One run after the other is killed (SIGKILL), each a stage further; the last one finishes."""
    emulator.always(by_color)
    folder, log = tmp_path / "images", tmp_path / "captions.jsonl"
    folder.mkdir()
    for path in draw_colors(folder, 250):  # and of each a second file of other bytes
        path.with_name(f"other-{path.name}").write_bytes(path.read_bytes() + b"\0")
    assert len(list(folder.iterdir())) == 500
    emulator.dialect.batches.looks = 3
    # "after upload" loses the file's id, so the one killed after it uploads anew, which asks nothing.
    for stage in STAGES:
        running = subprocess.Popen(
            command(folder, log, emulator),
            env=environment(emulator),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def kill(process=running):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return NO_ANSWER

        interrupt(emulator, stage, kill)
        assert running.wait(120) == -signal.SIGKILL, stage
    # While captions are written: of a process that has all of them, as soon as some lines are there.
    interrupt(emulator, "never", lambda: None)
    running = subprocess.Popen(
        command(folder, log, emulator), env=environment(emulator), stderr=subprocess.DEVNULL
    )
    while running.poll() is None and log.read_bytes().count(b"\n") < 50:
        os.sched_yield()
    with contextlib.suppress(ProcessLookupError):
        running.kill()
    running.wait()
    written = log.read_bytes().count(b"\n")
    done = subprocess.run(
        command(folder, log, emulator), env=environment(emulator), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert 50 <= written <= 501
    assert len({(line["key"], line["file"]) for line in lines}) == 500
    assert all(line["caption"].startswith("Red is ") for line in lines)
    counts = asked(emulator)
    assert sum(counts.values()) == len(counts) == 500
    assert len(emulator.dialect.batches.batches) == 1
    assert not hidden(log).exists()

"""Captions are kept in a file as they come: whatever ends a run, the next one asks only for what is missing."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_vision.captions import CaptionLog
from llama_vision.core.errors import ConfigurationError
from llama_vision.llamaindex import acaption_images
from tests.captions.captioning import caption, draw, model_at, naming, said_of, slow
from tests.drawing import png, scene

ROOT = Path(__file__).parents[2]


def test_what_is_known_is_not_asked_again_under_any_name(emulator, folder, tmp_path):
    emulator.always(naming)
    paths = draw(folder, 4)
    log = tmp_path / "new" / "captions.jsonl"
    first = caption(folder, model_at(emulator), resume=log)
    paths[0].rename(folder / "renamed.png")
    paths[1].write_bytes(png(scene(("red", "star", 0, 0), ("blue", "star", 2, 2))))
    second = caption(folder, model_at(emulator), resume=str(log))
    assert (first.num_asked, second.num_asked, len(emulator.requests)) == (4, 1, 5)
    assert emulator.requests[-1].images == [paths[1].read_bytes()]
    by_name = {node.metadata["file_name"]: node.text for node in second.nodes}
    assert by_name["renamed.png"] == first.nodes[0].text
    assert by_name["01.png"] == said_of(paths[1]) != first.nodes[1].text
    assert second.usage.output_tokens == 4
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 5
    assert lines[0]["model"] == "deepinfra/meta-llama/Llama-3.2-11B-Vision-Instruct"


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"prompt": "Other words?"}),
        ({"model": "llama-3.2-90b-vision"}, {}),
        ({}, {"model": "llama-3.2-90b-vision"}),
        ({"max_tokens": 99}, {}),
        ({}, {"temperature": 0.7}),
        ({"system_prompt": "Be brief."}, {}),
        ({"image_max_pixels": 1000}, {}),
    ],
)
def test_another_question_is_asked_again(emulator, folder, tmp_path, fields, options):
    draw(folder, 1)
    log = tmp_path / "captions.jsonl"
    caption(folder, model_at(emulator), resume=log)
    assert caption(folder, model_at(emulator, **fields), resume=log, **options).num_asked == 1
    assert caption(folder, model_at(emulator, **fields), resume=log, **options).num_asked == 0
    assert caption(folder, model_at(emulator, timeout=5, max_retries=1), resume=log).num_asked == 0


def test_failures_are_asked_again(emulator, folder, tmp_path):
    draw(folder, 3)
    emulator.script(emulator.refusal(500, "Out of memory"))
    first = caption(folder, model_at(emulator), resume=tmp_path / "captions.jsonl", concurrency=1)
    second = caption(folder, model_at(emulator), resume=tmp_path / "captions.jsonl")
    assert (len(first.failures), second.num_asked, len(second.nodes)) == (1, 1, 3)


def test_half_a_line_is_passed_over_and_what_follows_is_read(emulator, folder, tmp_path):
    draw(folder, 3)
    log = tmp_path / "captions.jsonl"
    caption(folder, model_at(emulator), resume=log)
    whole = log.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40, 5):
        log.write_bytes(whole[:cut])
        left = whole[: cut + 1].count(b"\n")  # a line that lacks only its end is whole
        assert caption(folder, model_at(emulator), resume=log).num_asked == 3 - left
        assert caption(folder, model_at(emulator), resume=log).num_asked == 0


def test_other_files_are_not_written_to(emulator, folder, tmp_path):
    draw(folder, 1)
    for name, content in {"data.csv": b"a;b\n1;2\n", "other.json": b'{"mine": 1}', "text": b"words"}.items():
        other = tmp_path / name
        other.write_bytes(content)
        with pytest.raises(ConfigurationError, match="holds no captions"):
            caption(folder, model_at(emulator), resume=other)
        assert other.read_bytes() == content
    with pytest.raises(ConfigurationError, match="can't be kept"):
        caption(folder, model_at(emulator), resume=tmp_path)
    assert emulator.requests == []


def test_the_file_may_lie_among_the_images(emulator, folder):
    draw(folder, 2)
    for _ in range(2):
        found = caption(folder, model_at(emulator), resume=folder / "captions.jsonl")
        assert (len(found.nodes), found.skipped) == (2, [])


def test_two_runs_do_not_write_to_one_file(emulator, folder, tmp_path):
    draw(folder, 1)
    log = tmp_path / "captions.jsonl"
    with CaptionLog(log):
        with pytest.raises(ConfigurationError, match="Another run is writing"):
            caption(folder, model_at(emulator), resume=log)
        assert emulator.requests == []
    assert caption(folder, model_at(emulator), resume=log).num_asked == 1


def test_a_file_is_unlocked_where_it_holds_no_captions(tmp_path):
    log = tmp_path / "captions.jsonl"
    for content in (b"a;b", b""):
        log.write_bytes(content)
        with contextlib.suppress(ConfigurationError), CaptionLog(log):
            pass
    with CaptionLog(log):
        pass


def test_a_pipe_is_refused_at_once(emulator, folder, tmp_path):
    draw(folder, 1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="no regular file"):
        caption(folder, model_at(emulator), resume=tmp_path / "pipe")


def test_lines_that_nobody_wrote_are_passed_over(emulator, folder, tmp_path):
    draw(folder, 2)
    log = tmp_path / "captions.jsonl"
    caption(folder, model_at(emulator), resume=log)
    with log.open("ab") as file:
        file.write(
            b"[" * 100_000
            + b"\n"
            + b'{"key": "'
            + b"\n"
            + b'{"key": 3, "caption": []}\n'
            + b"\xff\n"
            + b"9" * 5000
        )
    assert caption(folder, model_at(emulator), resume=log).num_asked == 0


FULL_DISK = """
import resource, sys
from llama_vision.llamaindex import LlamaVision, caption_images

folder, log, base_url, api_key = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
llm = LlamaVision(provider="deepinfra", api_base=base_url, api_key=api_key, max_retries=0)
found = caption_images(folder, llm, resume=log, concurrency=2, progress=False)
print(len(found.nodes), len(found.failures), found.failures[-1])
"""


@pytest.mark.slow
def test_a_full_disk_ends_the_calls_and_what_was_written_is_found_again(emulator, folder, tmp_path):
    draw(folder, 20)
    emulator.always(naming)
    log = tmp_path / "captions.jsonl"
    command = [sys.executable, "-c", FULL_DISK, folder, log, emulator.base_url, emulator.api_key]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    captioned, failed, text = done.stdout.strip().split(maxsplit=2)
    assert int(captioned) + int(failed) == 20
    assert "can't be written to the file: File too large. Make room" in text
    assert len(emulator.requests) <= int(captioned) + 2
    assert caption(folder, model_at(emulator), resume=log).num_asked == int(failed)
    assert len(caption(folder, model_at(emulator), resume=log).nodes) == 20
    assert len(emulator.requests) <= 22


CAPTION_ALL = """
import sys
from llama_vision.llamaindex import LlamaVision, caption_images

folder, log, base_url, api_key = sys.argv[1:]
llm = LlamaVision(provider="deepinfra", api_base=base_url, api_key=api_key, max_retries=0)
found = caption_images(folder, llm, resume=log, concurrency=3, progress=False)
print(len(found.nodes), len(found.failures), found.num_asked)
"""


@pytest.mark.slow
def test_killed_twice_it_ends_with_each_captioned_and_only_those_on_their_way_asked_again(
    emulator, folder, tmp_path
):
    paths, log = draw(folder, 24), tmp_path / "captions.jsonl"
    contents = {path.read_bytes() for path in paths}
    emulator.always(lambda received: slow(f"Picture of {len(received.images[0])} bytes.", 0.1))
    command = [sys.executable, "-c", CAPTION_ALL, folder, log, emulator.base_url, emulator.api_key]
    lost = 0
    for enough in (7, 15):
        with subprocess.Popen(command) as process:
            assert emulator.wait_for_requests(enough, timeout=60)
            process.kill()
        asked, kept = len(emulator.requests), len(log.read_text().splitlines())
        assert 0 < asked - kept - lost <= 3
        lost = asked - kept
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["24", "0", str(24 - kept)]
    assert len(emulator.requests) == 24 + lost
    assert lost <= 6
    assert {request.images[0] for request in emulator.requests} == contents
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines}) == 24
    assert {line["file"]: line["caption"] for line in lines} == {path.name: said_of(path) for path in paths}


def test_a_cancelled_call_keeps_what_is_done_and_leaves_nothing_running(emulator, folder, tmp_path):
    draw(folder, 12)
    emulator.always(slow("A cat.", 0.1))
    log = tmp_path / "captions.jsonl"

    async def interrupted():
        llm = model_at(emulator)
        work = asyncio.create_task(acaption_images(folder, llm, resume=log, concurrency=2, progress=False))
        await asyncio.to_thread(emulator.wait_for_requests, 5)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(interrupted()) == []
    kept = len(log.read_text().splitlines())
    assert kept >= 3
    assert caption(folder, model_at(emulator), resume=log).num_asked == 12 - kept


INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from llama_vision.llamaindex import LlamaVision, caption_images

folder, log, base_url, api_key, place = sys.argv[1:]
llm = LlamaVision(provider="deepinfra", api_base=base_url, api_key=api_key, max_retries=0)

def interrupt():
    while not Path(log).exists() or Path(log).read_text().count("\\n") < 4:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

async def cell():
    caption_images(folder, llm, resume=log, concurrency=2, progress=False)

def run():
    caption_images(folder, llm, resume=log, concurrency=2, progress=False)

threading.Thread(target=interrupt, daemon=True).start()
try:
    if place == "script":
        run()
    else:
        loop = asyncio.new_event_loop()  # as a notebook's: it leaves interrupts to the cell
        loop.run_until_complete(cell())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("place", ["script", "notebook"])
@pytest.mark.slow_beyond(1)
def test_an_interrupt_ends_it_at_once_and_keeps_what_is_done(emulator, folder, tmp_path, place):
    draw(folder, 40)
    emulator.always(slow("A cat.", 0.2))
    log = tmp_path / "captions.jsonl"
    command = [sys.executable, "-c", INTERRUPTED, folder, log, emulator.base_url, emulator.api_key, place]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    assert 4 <= len(log.read_text().splitlines()) < 30
    assert len(emulator.requests) < 30

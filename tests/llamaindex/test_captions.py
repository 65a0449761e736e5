"""`caption_images`: every picture is asked about once, whatever happens, and becomes a node that shows it."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode

from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    ImageError,
    MalformedReplyError,
    MissingKeyError,
    ServerError,
)
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal, acaption_images, caption_images
from tests.drawing import COLORS, SHAPES, png, scene
from tests.emulator import Answer, Wait, completion

PAIRS = [(color, shape) for color in COLORS for shape in SHAPES]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


def draw(folder, count, first=0):
    """Draw so many pictures, each another one."""
    paths = [folder / f"{number:02}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(png(scene((*PAIRS[number], 1, 1))))
    return paths


def model_at(emulator, model_class=LlamaVision, **options):
    fields = {"provider": "deepinfra", "api_base": emulator.base_url, "api_key": emulator.api_key}
    return model_class(**{"max_retries": 0, **fields, **options})


def caption(paths, llm, **options):
    return caption_images(paths, llm, progress=False, **options)


def naming(received):
    """Say something that depends on the picture."""
    return completion(f"Picture of {len(received.images[0])} bytes.")


def slow(text, seconds):
    """Answer whole, after a while."""
    body = json.dumps(completion(text)).encode()
    return Answer((Wait(seconds), body), headers={"content-type": "application/json"})


def said_of(path):
    return f"Picture of {len(path.read_bytes())} bytes."


@pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])
def test_each_picture_of_a_folder_becomes_a_node(emulator, folder, model_class):
    emulator.always(naming)
    paths = draw(folder, 5)
    found = caption(folder, model_at(emulator, model_class), prompt="What is it?")
    assert [node.image_path for node in found.nodes] == [str(path) for path in paths]
    assert [node.text for node in found.nodes] == [said_of(path) for path in paths]
    assert {node.image_mimetype for node in found.nodes} == {"image/png"}
    assert [node.metadata["file_name"] for node in found.nodes] == [path.name for path in paths]
    assert (found.asked, found.failures, found.passed_over, found.cut) == (5, [], [], [])
    assert sorted(request.images[0] for request in emulator.requests) == sorted(p.read_bytes() for p in paths)
    parts = emulator.requests[0].body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]
    assert parts[1]["text"] == "What is it?"


def test_only_the_caption_is_embedded_and_a_model_is_shown_caption_name_and_picture(emulator, folder):
    emulator.always(completion("A cat."))
    (path,) = draw(folder, 1)
    (node,) = caption(folder, model_at(emulator)).nodes
    assert node.get_content(MetadataMode.EMBED) == "A cat."
    words, picture = node.get_content_blocks(MetadataMode.LLM)
    assert words.text == "file_name: 00.png\ncaption: A cat."
    assert picture.resolve_image().read() == path.read_bytes()


def test_usage_and_cost_are_summed_up(emulator, folder):
    draw(folder, 3)
    found = caption(folder, model_at(emulator))
    replies = [emulator.dialect.reply(request)["usage"] for request in emulator.requests]
    assert found.usage.input_tokens == sum(reply["prompt_tokens"] for reply in replies)
    assert found.usage.output_tokens == sum(reply["completion_tokens"] for reply in replies)
    assert found.usage.cost_usd == pytest.approx(sum(reply["estimated_cost"] for reply in replies))
    assert f"3 captions, 3 of them new, for {found.usage.cost_usd:.6f} USD" in str(found)


def test_what_nobody_told_is_not_zero(emulator, folder):
    emulator.always(completion("A cat.", usage={}))
    draw(folder, 2)
    found = caption(folder, model_at(emulator))
    assert (found.usage.input_tokens, found.usage.output_tokens) == (None, None)
    assert str(found) == "2 captions, 2 of them new"


def test_pictures_are_told_by_their_bytes(emulator, folder):
    (path,) = draw(folder, 1)
    bare = path.rename(folder / "no_ending")
    mislabelled = folder / "photo.txt"
    shutil.copy(draw(folder, 1, first=1)[0], mislabelled)
    (folder / "01.png").unlink()
    (folder / "notes.md").write_text("words")
    (folder / ".hidden").mkdir()
    draw(folder / ".hidden", 1, first=2)
    (folder / "deeper").mkdir()
    (deep,) = draw(folder / "deeper", 1, first=3)
    found = caption(folder, model_at(emulator))
    assert [node.image_path for node in found.nodes] == [str(deep), str(bare), str(mislabelled)]
    assert found.passed_over == [folder / "notes.md"]
    assert found.failures == []


def test_a_picture_without_an_ending_is_shown_to_the_model_by_a_query_engine(emulator, folder):
    (path,) = draw(folder, 1)
    bare = path.rename(folder / "no_ending")
    llm = model_at(emulator)
    index = VectorStoreIndex(caption(folder, llm).nodes, embed_model=MockEmbedding(4))
    engine = RetrieverQueryEngine.from_args(index.as_retriever(), llm=llm, multimodal=True)
    assert str(engine.query("What?")) == "I see 1 image(s)."
    assert emulator.requests[-1].images == [bare.read_bytes()]


def test_files_and_folders_may_be_mixed_and_each_file_counts_once(emulator, folder):
    paths = draw(folder, 3)
    found = caption([paths[2], folder, str(paths[0])], model_at(emulator))
    assert [node.image_path for node in found.nodes] == [str(paths[n]) for n in (2, 0, 1)]
    assert len(emulator.requests) == 3
    one = caption(paths[1], model_at(emulator))
    assert [node.image_path for node in one.nodes] == [str(paths[1])]


def test_of_copies_only_one_is_asked_about_and_each_is_a_node(emulator, folder):
    emulator.always(slow("A cat.", 0.1))
    (path,) = draw(folder, 1)
    for number in range(3):
        shutil.copy(path, folder / f"copy{number}.png")
    found = caption(folder, model_at(emulator))
    assert len(emulator.requests) == found.asked == 1
    assert len({node.node_id for node in found.nodes}) == 4
    assert {node.text for node in found.nodes} == {"A cat."}


def test_ids_stay_where_a_picture_moves_and_change_where_it_changes(emulator, folder, tmp_path):
    paths = draw(folder, 2)
    before = [node.node_id for node in caption(folder, model_at(emulator)).nodes]
    other = folder.rename(tmp_path / "elsewhere")
    (other / "00.png").rename(other / "renamed.png")
    draw(other, 1, first=1)[0].write_bytes(png(scene(("red", "star", 0, 0), ("red", "star", 1, 1))))
    changed, renamed = caption(other, model_at(emulator), prompt="Other words?").nodes
    assert renamed.node_id == before[0]
    assert changed.node_id not in before
    assert len(paths) == len(set(before)) == 2


def test_no_more_are_on_their_way_than_allowed(emulator, folder):
    draw(folder, 9)
    emulator.always(slow("A cat.", 0.15))
    began = time.monotonic()
    caption(folder, model_at(emulator), concurrency=3)
    took = time.monotonic() - began
    times = sorted(request.at for request in emulator.requests)
    assert len(times) == 9
    for first, fourth in zip(times, times[3:], strict=False):
        assert fourth - first > 0.14
    assert took < 9 * 0.15


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_concurrency_below_one_is_refused(emulator, folder, concurrency):
    draw(folder, 1)
    with pytest.raises(ConfigurationError, match="at least 1"):
        caption(folder, model_at(emulator), concurrency=concurrency)
    assert emulator.requests == []


def test_options_of_a_call_go_with_each(emulator, folder):
    draw(folder, 2)
    caption(folder, model_at(emulator), max_tokens=77, temperature=0.5)
    assert [request.body["max_tokens"] for request in emulator.requests] == [77, 77]
    assert emulator.requests[0].body["temperature"] == 0.5


def test_it_works_inside_a_running_loop_and_has_an_async_twin(emulator, folder):
    emulator.always(naming)
    draw(folder, 3)
    llm = model_at(emulator)

    async def notebook():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        inside = caption(folder, llm)
        assert ticks == 0  # it blocks, as a synchronous call does
        emulator.always(slow("A cat.", 0.2))
        awaited = await acaption_images(folder, llm, progress=False)
        ticking.cancel()
        return inside, awaited, ticks

    inside, awaited, ticks = asyncio.run(notebook())
    assert inside.nodes == caption_without_slowness(emulator, folder, llm)
    assert [node.text for node in awaited.nodes] == ["A cat."] * 3
    assert ticks > 5


def caption_without_slowness(emulator, folder, llm):
    emulator.always(naming)
    return caption(folder, llm).nodes


def test_errors_before_the_first_call_are_raised_inside_a_running_loop_too(emulator, tmp_path):
    async def notebook():
        caption(tmp_path / "nowhere", model_at(emulator))

    with pytest.raises(ImageError, match="nowhere"):
        asyncio.run(notebook())


# What goes wrong.


def test_a_broken_file_and_a_refusal_are_listed_and_the_others_captioned(emulator, folder):
    paths = draw(folder, 4)
    refused = paths[1].read_bytes()
    paths[2].write_bytes(b"<!doctype html><p>Not found")
    (folder / "empty.jpg").touch()

    def answer(received):
        return emulator.refusal(500, "Out of memory") if received.images[0] == refused else naming(received)

    emulator.always(answer)
    found = caption(folder, model_at(emulator))
    assert [node.image_path for node in found.nodes] == [str(paths[0]), str(paths[3])]
    failures = {failure.path: failure.error for failure in found.failures}
    assert failures.keys() == {paths[1], paths[2], folder / "empty.jpg"}
    assert isinstance(failures[paths[1]], ServerError)
    assert isinstance(failures[paths[2]], ImageError)
    assert len(emulator.requests) == 3
    text = str(found)
    assert "3 pictures have none" in text
    assert "Out of memory" in text
    assert f"  {paths[1]}: " in text
    assert f"  {paths[2]}: This is not a picture: it looks like a web page" in text


def test_a_missing_file_among_several_is_listed_and_alone_is_an_error(emulator, folder):
    (path,) = draw(folder, 1)
    missing = folder / "missing.png"
    found = caption([missing, path], model_at(emulator))
    assert len(found.nodes) == 1
    assert [failure.path for failure in found.failures] == [missing]
    with pytest.raises(ImageError, match=r"missing\.png"):
        caption(missing, model_at(emulator))


def test_an_empty_folder_gives_nothing(emulator, folder):
    found = caption(folder, model_at(emulator))
    assert (found.nodes, found.failures, str(found)) == ([], [], "0 captions, 0 of them new")


def test_a_wrong_key_is_tried_once_and_not_for_every_picture(emulator, folder):
    draw(folder, 6)
    found = caption(folder, model_at(emulator, api_key="wrong-key"), concurrency=1)
    assert len(emulator.requests) == 1
    assert len(found.failures) == 6
    assert all(isinstance(failure.error, AuthenticationError) for failure in found.failures)
    assert "wrong-key" not in str(found)


def test_without_a_key_the_failures_say_where_to_get_one(folder, monkeypatch):
    for name in ("DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN", "DEEPINFRA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    draw(folder, 2)
    found = caption(folder, LlamaVision(provider="deepinfra"))
    assert all(isinstance(failure.error, MissingKeyError) for failure in found.failures)
    assert len(found.failures) == 2


def test_a_picture_of_which_nothing_is_said_is_a_failure(emulator, folder):
    draw(folder, 1)
    emulator.script(completion("  \n"), completion("", finish_reason="length"))
    (silent,) = caption(folder, model_at(emulator)).failures
    (cut,) = caption(folder, model_at(emulator)).failures
    assert isinstance(silent.error, MalformedReplyError)
    assert "another prompt" in str(silent)
    assert "raise max_tokens" in str(cut)


def test_captions_that_were_cut_off_are_named_also_when_they_are_found_again(emulator, folder, tmp_path):
    (path,) = draw(folder, 1)
    emulator.script(completion("A cat on", finish_reason="length"))
    for _ in range(2):
        found = caption(folder, model_at(emulator), resume=tmp_path / "captions.jsonl")
        assert found.cut == [path]
        assert "raise max_tokens" in str(found)


# Going on.


def test_what_is_known_is_not_asked_again_under_any_name(emulator, folder, tmp_path):
    emulator.always(naming)
    paths = draw(folder, 4)
    log = tmp_path / "new" / "captions.jsonl"
    first = caption(folder, model_at(emulator), resume=log)
    paths[0].rename(folder / "renamed.png")
    paths[1].write_bytes(png(scene(("red", "star", 0, 0), ("blue", "star", 2, 2))))
    second = caption(folder, model_at(emulator), resume=str(log))
    assert (first.asked, second.asked, len(emulator.requests)) == (4, 1, 5)
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
    assert caption(folder, model_at(emulator, **fields), resume=log, **options).asked == 1
    assert caption(folder, model_at(emulator, **fields), resume=log, **options).asked == 0
    assert caption(folder, model_at(emulator, timeout=5, max_retries=1), resume=log).asked == 0


def test_failures_are_asked_again(emulator, folder, tmp_path):
    draw(folder, 3)
    emulator.script(emulator.refusal(500, "Out of memory"))
    first = caption(folder, model_at(emulator), resume=tmp_path / "captions.jsonl", concurrency=1)
    second = caption(folder, model_at(emulator), resume=tmp_path / "captions.jsonl")
    assert (len(first.failures), second.asked, len(second.nodes)) == (1, 1, 3)


def test_half_a_line_is_passed_over_and_what_follows_is_read(emulator, folder, tmp_path):
    draw(folder, 3)
    log = tmp_path / "captions.jsonl"
    caption(folder, model_at(emulator), resume=log)
    whole = log.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40, 5):
        log.write_bytes(whole[:cut])
        left = whole[: cut + 1].count(b"\n")  # a line that lacks only its end is whole
        assert caption(folder, model_at(emulator), resume=log).asked == 3 - left
        assert caption(folder, model_at(emulator), resume=log).asked == 0


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


def test_the_file_may_lie_among_the_pictures(emulator, folder):
    draw(folder, 2)
    for _ in range(2):
        found = caption(folder, model_at(emulator), resume=folder / "captions.jsonl")
        assert (len(found.nodes), found.passed_over) == (2, [])


CAPTION_ALL = """
import sys
from llama_vision.llamaindex import LlamaVision, caption_images

folder, log, base_url, api_key = sys.argv[1:]
llm = LlamaVision(provider="deepinfra", api_base=base_url, api_key=api_key, max_retries=0)
found = caption_images(folder, llm, resume=log, concurrency=3, progress=False)
print(len(found.nodes), len(found.failures), found.asked)
"""


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
    assert caption(folder, model_at(emulator), resume=log).asked == 12 - kept


INTERRUPTED = """
import asyncio, os, signal, sys, threading
from pathlib import Path
from llama_vision.llamaindex import LlamaVision, caption_images

folder, log, base_url, api_key, place = sys.argv[1:]
llm = LlamaVision(provider="deepinfra", api_base=base_url, api_key=api_key, max_retries=0)

def interrupt():
    while not Path(log).exists() or Path(log).read_text().count("\\n") < 4:
        pass
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
def test_an_interrupt_ends_it_at_once_and_keeps_what_is_done(emulator, folder, tmp_path, place):
    draw(folder, 40)
    emulator.always(slow("A cat.", 0.1))
    log = tmp_path / "captions.jsonl"
    command = [sys.executable, "-c", INTERRUPTED, folder, log, emulator.base_url, emulator.api_key, place]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    assert 4 <= len(log.read_text().splitlines()) < 30
    assert len(emulator.requests) < 30


# What one sees, and what indexes make of it.


def test_a_bar_is_drawn_unless_it_is_not_wanted(emulator, folder, capsys):
    draw(folder, 3)
    caption(folder, model_at(emulator))
    assert capsys.readouterr().err == ""
    caption_images(folder, model_at(emulator))
    drawn = capsys.readouterr().err
    assert "Captions: 100%" in drawn
    assert "3/3" in drawn


KERNEL = """
import sys, types
for name in ("IPython", "ipykernel.zmqshell"):  # by these tqdm knows a notebook
    sys.modules[name] = types.ModuleType(name)
sys.modules["IPython"].get_ipython = lambda: None
for name in ("ipywidgets", "IPython.html", "IPython.display"):
    sys.modules[name] = None
"""


def test_a_notebook_without_widgets_gets_a_bar_and_no_warning(emulator, folder):
    draw(folder, 1)
    code = f"""{KERNEL}
from llama_vision.llamaindex import LlamaVision, caption_images
llm = LlamaVision(provider="deepinfra", api_base={emulator.base_url!r}, api_key={emulator.api_key!r})
print(len(caption_images({str(folder)!r}, llm).nodes), "tqdm.notebook" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1 True\n"), done.stderr
    assert "1/1" in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("move", [False, True])
def test_an_index_that_was_stored_and_loaded_still_shows_the_pictures(emulator, folder, tmp_path, move):
    paths = draw(folder, 3)
    llm = model_at(emulator)
    index = VectorStoreIndex(caption(folder, llm).nodes, embed_model=MockEmbedding(4))
    index.storage_context.persist(tmp_path / "index")
    if move:  # the index, not the pictures
        (tmp_path / "index").rename(tmp_path / "moved")
    storage = StorageContext.from_defaults(persist_dir=tmp_path / ("moved" if move else "index"))
    loaded = load_index_from_storage(storage, embed_model=MockEmbedding(4))
    nodes = loaded.docstore.docs.values()
    assert all(isinstance(node, ImageNode) for node in nodes)
    engine = RetrieverQueryEngine.from_args(
        loaded.as_retriever(similarity_top_k=3), llm=llm, multimodal=True, response_mode="accumulate"
    )
    emulator.reset()
    response = engine.query("What is it?")
    assert sorted(received.images[0] for received in emulator.requests) == sorted(
        path.read_bytes() for path in paths
    )
    assert len(response.source_nodes) == 3


def test_inserting_the_same_nodes_again_does_not_double_them(emulator, folder):
    draw(folder, 3)
    llm = model_at(emulator)
    index = VectorStoreIndex(caption(folder, llm).nodes, embed_model=MockEmbedding(4))
    index.insert_nodes(caption(folder, llm).nodes)
    assert len(index.as_retriever(similarity_top_k=10).retrieve("What?")) == 3

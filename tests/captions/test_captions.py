"""`caption_images`: every picture is asked about once, whatever happens, and becomes a node that shows it."""

import asyncio
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
    ConfigurationError,
    ImageError,
)
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal, acaption_images, caption_images
from tests.captions.captioning import caption, draw, model_at, naming, said_of, slow
from tests.drawing import png, scene
from tests.emulator import completion

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])
def test_each_image_of_a_folder_becomes_a_node(emulator, folder, model_class):
    emulator.always(naming)
    paths = draw(folder, 5)
    found = caption(folder, model_at(emulator, model_class), prompt="What is it?")
    assert [node.image_path for node in found.nodes] == [str(path) for path in paths]
    assert [node.text for node in found.nodes] == [said_of(path) for path in paths]
    assert {node.image_mimetype for node in found.nodes} == {"image/png"}
    assert [node.metadata["file_name"] for node in found.nodes] == [path.name for path in paths]
    assert (found.num_asked, found.failures, found.skipped, found.truncated) == (5, [], [], [])
    assert sorted(request.images[0] for request in emulator.requests) == sorted(p.read_bytes() for p in paths)
    parts = emulator.requests[0].body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]
    assert parts[1]["text"] == "What is it?"


def test_only_the_caption_is_embedded_and_a_model_is_shown_caption_name_and_image(emulator, folder):
    emulator.always(completion("A cat."))
    (path,) = draw(folder, 1)
    (node,) = caption(folder, model_at(emulator)).nodes
    assert node.get_content(MetadataMode.EMBED) == "A cat."
    words, image = node.get_content_blocks(MetadataMode.LLM)
    assert words.text == "file_name: 00.png\ncaption: A cat."
    assert image.resolve_image().read() == path.read_bytes()


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


def test_images_are_told_by_their_bytes(emulator, folder):
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
    assert found.skipped == [folder / "notes.md"]
    assert found.failures == []


def test_a_image_without_an_ending_is_shown_to_the_model_by_a_query_engine(emulator, folder):
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
    assert len(emulator.requests) == found.num_asked == 1
    assert len({node.node_id for node in found.nodes}) == 4
    assert {node.text for node in found.nodes} == {"A cat."}


def test_ids_stay_where_a_image_moves_and_change_where_it_changes(emulator, folder, tmp_path):
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


@pytest.mark.slow
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
def test_an_index_that_was_stored_and_loaded_still_shows_the_images(emulator, folder, tmp_path, move):
    paths = draw(folder, 3)
    llm = model_at(emulator)
    index = VectorStoreIndex(caption(folder, llm).nodes, embed_model=MockEmbedding(4))
    index.storage_context.persist(tmp_path / "index")
    if move:  # the index, not the images
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

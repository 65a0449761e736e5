"""Retrieval over images from end to end: with real models offline, and streamed from a slow provider."""

import asyncio
import time
from importlib.metadata import version

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine

from benchmarks.rag import minilm, results
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal, caption_images
from tests.emulator import Wait, chunks, completion, event_stream

WORDS = " ".join(f"word{number}" for number in range(12))
PAUSE = 0.08
# Before 0.14.25 LlamaIndex's refining engines wait for the whole answer, whatever the model does.
REFINING = ["compact", "refine"] if int(version("llama-index-core").split(".")[2]) >= 25 else []
IN_EACH_MODE = pytest.mark.parametrize("response_mode", ["simple_summarize", "tree_summarize", *REFINING])
BOTH = pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])


@pytest.mark.slow
def test_images_are_found_by_their_captions_and_answers_are_read_off_them(tmp_path):
    found = results(tmp_path, minilm(), questions=12, images=24)
    assert found["hit_rate"] >= 0.8
    assert found["accuracy"] >= 0.7
    assert found["accuracy"] >= found["guess"] + 0.2
    assert found["blind"] <= found["guess"]
    assert found["follows_image"] >= 0.7


def slow_engine(emulator, model_class, response_mode):
    """An engine over one image, whose answers come a word at a time."""
    llm = model_class(
        provider="deepinfra", api_base=emulator.base_url, api_key=emulator.api_key, max_retries=0
    )
    nodes = caption_images(SAMPLE_IMAGES["circle"], llm, progress=False).nodes
    emulator.always(
        event_stream(
            *[step for chunk in chunks(completion(WORDS)) for step in (chunk, Wait(PAUSE))], "[DONE]"
        )
    )
    return RetrieverQueryEngine.from_args(
        VectorStoreIndex(nodes, embed_model=MockEmbedding(4)).as_retriever(similarity_top_k=1),
        llm=llm,
        multimodal=True,
        streaming=True,
        response_mode=response_mode,
    )


def check_it_streamed(emulator, pieces, began, came):
    assert "".join(pieces) == WORDS
    assert len(pieces) >= 12
    least = 11 * PAUSE  # between the first word and the last, as the emulator sends them
    assert came[-1] - came[0] > 0.7 * least
    assert came[0] - began < came[-1] - came[0]
    assert emulator.requests[-1].streamed
    assert emulator.requests[-1].images == [SAMPLE_IMAGES["circle"].read_bytes()]


@BOTH
@IN_EACH_MODE
@pytest.mark.slow_beyond(1)
def test_a_query_engine_gives_the_first_word_before_the_last_is_written(emulator, model_class, response_mode):
    engine = slow_engine(emulator, model_class, response_mode)
    began = time.monotonic()
    pieces, came = [], []
    for piece in engine.query("What is it?").response_gen:
        pieces.append(piece)
        came.append(time.monotonic())
    check_it_streamed(emulator, pieces, began, came)


@BOTH
@IN_EACH_MODE
@pytest.mark.slow
def test_so_does_its_async_twin(emulator, model_class, response_mode):
    async def ask():
        engine = slow_engine(emulator, model_class, response_mode)
        began = time.monotonic()
        pieces, came = [], []
        response = await engine.aquery("What is it?")
        async for piece in response.async_response_gen():
            pieces.append(piece)
            came.append(time.monotonic())
        return pieces, began, came

    check_it_streamed(emulator, *asyncio.run(ask()))

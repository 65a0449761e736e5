"""The KV cache grows with its sequences, and is freed when the engine is idle."""

import time

import pytest

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import engine_thread
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.engine_thread import EngineThread
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.events import Finished
from tests.drawing import one_shape
from tests.hugging_face import with_four_tiles
from tests.local_engine import add, run_one


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


@pytest.fixture(scope="module")
def tiled(loaded):
    return with_four_tiles(loaded)


def ask(text, *images):
    parts = (*(image_from_any(image) for image in images), Text(text))
    return ChatRequest(
        "tiny", (Message("user", parts),), sampling=SamplingParams(max_tokens=24, temperature=0)
    )


def text_of(loaded, num_tokens):
    """Text of about so many tokens."""
    return "so " * round(num_tokens * 100 / len(loaded.tokenizer.encode("so " * 100).ids))


def test_the_memory_of_a_large_request_is_freed(tiled):
    engine = Engine(tiled, LocalSettings(prefix_cache_bytes=0))
    small, large = ask("Describe the image.", one_shape(1)[0]), ask(text_of(tiled, 1600), one_shape(2)[0])
    first = run_one(engine, small), run_one(engine, large)
    assert engine.can_trim
    add(engine, small)
    assert not engine.can_trim  # a sequence is running
    engine.trim_memory()
    assert engine._kv_cache.self_attention.capacity > 1500
    while engine.num_running:
        engine.step()
    engine.trim_memory()
    assert not engine.can_trim
    assert engine._kv_cache.self_attention.capacity == 0
    assert all(keys.numel() == 0 for keys in engine._kv_cache.self_attention.keys.values())
    assert (run_one(engine, small), run_one(engine, large)) == first


def test_the_memory_of_a_small_request_is_kept(loaded):
    engine = Engine(loaded, LocalSettings())
    run_one(engine, ask("Say hi"))
    assert not engine.can_trim
    engine.trim_memory()
    assert engine._kv_cache.self_attention.capacity == 256


def test_an_idle_engine_thread_frees_memory(loaded, monkeypatch):
    monkeypatch.setattr(engine_thread, "_IDLE_TIMEOUT_S", 0.2)
    thread = EngineThread("tiny", LocalSettings(prefix_cache_bytes=0))
    try:
        outputs = []
        thread.submit(ask(text_of(loaded, 1600)), outputs.append)
        limit = time.monotonic() + 60
        while not (outputs and isinstance(outputs[-1], Finished)) and time.monotonic() < limit:
            time.sleep(0.01)
        assert thread._engine._kv_cache.self_attention.capacity > 1500
        while thread._engine._kv_cache.self_attention.capacity and time.monotonic() < limit:
            time.sleep(0.01)
        assert thread._engine._kv_cache.self_attention.capacity == 0
    finally:
        thread.stop()

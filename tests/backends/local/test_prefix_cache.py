"""The prefix cache: prefill starts where a prompt differs from an earlier conversation."""

from dataclasses import replace

import pytest

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local.block_pool import BlockPool
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.prefix_cache import PrefixCache
from tests.drawing import one_shape
from tests.hugging_face import with_four_tiles
from tests.local_engine import counted_images, counted_tokens, run_one

SHORT = SamplingParams(max_tokens=24, temperature=0)
UNCACHED = LocalSettings(prefix_cache_bytes=0)


@pytest.fixture(scope="module")
def tiled():
    return with_four_tiles(load_model("tiny"))


def ask(text, *images):
    parts = (*(image_from_any(image) for image in images), Text(text))
    return ChatRequest("tiny", (Message("user", parts),), sampling=SHORT)


def next_turn(request, reply, text, *images):
    """The same conversation, one turn longer."""
    previous = Message("assistant", (Text(reply.text),))
    return replace(request, messages=(*request.messages, previous, *ask(text, *images).messages))


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.slow_beyond(1)
def test_the_next_turn_computes_only_new_tokens(tiled, images, monkeypatch):
    # Drafts are computed too.
    monkeypatch.setattr("llama_vision.backends.local.engine.pays_prompt_lookup", lambda *_: False)
    shapes = [one_shape(seed)[0] for seed in range(images)]
    engine = Engine(tiled, LocalSettings())
    request = ask("Repeat: " + "Paris London Berlin Rome Oslo Cairo " * 4, *shapes)
    for question, more in [("And now?", []), ("And this?", shapes[:1]), ("Are you sure?", [])]:
        reply = run_one(engine, request)
        request = next_turn(request, reply, question, *more)
        with counted_tokens(tiled) as computed, counted_images(tiled) as encoded:
            again = run_one(engine, request)
        usage = again.usage
        # Prefill yields the first output token, decode the others.
        assert sum(computed) == usage.input_tokens - usage.cached_input_tokens + usage.output_tokens - 1
        assert usage.cached_input_tokens >= reply.usage.input_tokens
        assert encoded == []
        uncached = run_one(Engine(tiled, UNCACHED), request)
        assert (again.text, uncached.usage.cached_input_tokens) == (uncached.text, 0)


def test_of_an_equal_prompt_only_the_last_token_is_computed(tiled):
    engine = Engine(tiled, LocalSettings())
    request = ask("Describe the image. " * 9, one_shape(3)[0])
    first, second = run_one(engine, request), run_one(engine, request)
    assert first.usage.cached_input_tokens == 0
    assert second.usage.cached_input_tokens == second.usage.input_tokens - 1
    assert second.text == first.text


def test_another_image_is_another_prefix(tiled):
    engine = Engine(tiled, LocalSettings())
    question = "Describe the image. " * 9
    for seed in range(3):
        request = ask(question, one_shape(seed)[0])
        reply = run_one(engine, request)
        assert reply.usage.cached_input_tokens == 0
        assert reply.text == run_one(Engine(tiled, UNCACHED), request).text


def test_equal_text_before_another_image_is_cached(tiled):
    engine = Engine(tiled, LocalSettings())
    for seed in range(3):
        parts = (Text("Paris London " * 20), image_from_any(one_shape(seed)[0]), Text("Describe the image."))
        request = ChatRequest("tiny", (Message("user", parts),), sampling=SHORT)
        reply = run_one(engine, request)
        assert (reply.usage.cached_input_tokens > 40) is (seed > 0)
        assert reply.text == run_one(Engine(tiled, UNCACHED), request).text


def cached(num_tokens, max_blocks=None):
    """A cache of blocks of 16 tokens, and a function that lets a finished sequence fill it."""
    pool = BlockPool(num_tokens // 16 + 1)
    cache = PrefixCache(pool, 16, max_blocks)

    def insert(tokens):
        match = cache.match([*tokens, -1])
        nodes = list(match.nodes)
        if match.partial is not None:
            cache.release([match.partial])
        blocks = [node.block_id for node in nodes] + pool.allocate(-(-len(tokens) // 16) - len(nodes))
        cache.insert(tokens, blocks, nodes, is_complete=True)
        pool.free(blocks[len(nodes) :])
        cache.release(nodes)

    def num_cached(tokens):
        match = cache.match([*tokens, -1])
        cache.release(match.retained)
        return match.num_tokens

    return cache, pool, insert, num_cached


def test_the_least_recently_used_prefix_is_evicted(caplog):
    caplog.set_level("DEBUG", "llama_vision")
    cache, pool, insert, num_cached = cached(16 * 12)
    for first in range(3):
        insert([first] * 64)
        num_cached([0] * 50)
    assert caplog.messages.count("Prefix cache hit: 50 of 51 prompt tokens") == 3
    insert([9] * 48)  # takes the end of what was used last
    assert [num_cached([first] * 64) for first in range(3)] == [64, 0, 64]
    cache.clear()
    assert (num_cached([0] * 64), pool.num_available) == (0, 12)
    assert cache._root == {}  # nothing grows with what was evicted


def test_a_cache_of_no_blocks_keeps_nothing():
    _, pool, insert, num_cached = cached(16 * 12, max_blocks=0)
    insert([0] * 64)
    assert (num_cached([0] * 64), pool.num_available) == (0, 12)


def test_a_growing_conversation_is_cached_once():
    _, pool, insert, num_cached = cached(16 * 30)
    for count in range(40, 400, 40):
        insert([*range(count)])
        assert num_cached([*range(count)]) == count
        assert pool.num_available - len(pool._free) == -(-count // 16)
    insert([*range(200)])
    assert pool.num_available - len(pool._free) == -(-360 // 16)
    assert num_cached([*range(150), 7, 7, 7]) == 150
    assert num_cached([*range(31)]) == 0  # as fast computed as found


def test_the_last_token_of_a_prompt_is_computed():
    cache, _, insert, _ = cached(16 * 30)
    insert([*range(100)])
    match = cache.match([*range(64)])
    assert (match.num_tokens, len(match.nodes), match.partial is None) == (63, 3, False)

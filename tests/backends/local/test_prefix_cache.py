"""The prefix cache: prefill starts where a prompt differs from an earlier conversation."""

from dataclasses import replace

import pytest
import torch

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
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
def test_the_next_turn_computes_only_new_tokens(tiled, images):
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


def kv_of(num_tokens):
    """Keys and values of so many tokens: 40 bytes each."""
    return torch.arange(num_tokens).float().expand(2, 5, num_tokens)[..., None].contiguous()


def test_the_least_recently_used_prefix_is_evicted(caplog):
    caplog.set_level("DEBUG", "llama_vision")
    cache = PrefixCache(40 * 250)
    for first in range(3):
        cache.insert([first] * 100, lambda: kv_of(100))
        cache.match([0] * 50)
    assert cache.num_bytes == 40 * 200
    assert caplog.messages.count("Prefix cache eviction: 100 tokens") == 1
    assert caplog.messages.count("Prefix cache hit: 50 of 50 prompt tokens") == 3
    assert [cache.match([first] * 64) is not None for first in range(3)] == [True, False, True]
    cache.insert([9] * 300, lambda: kv_of(300))  # by itself more than there is room for
    assert cache.num_bytes == 40 * 200
    cache.clear()
    assert (cache.num_bytes, cache.match([0] * 64)) == (0, None)
    PrefixCache(0).insert([0] * 64, lambda: pytest.fail("it caches nothing"))


def test_a_growing_conversation_is_cached_once():
    cache = PrefixCache(2**20)
    for count in range(40, 400, 40):
        cache.insert([*range(count)], lambda count=count: kv_of(count))
        assert cache.num_bytes == 40 * count
    cache.insert([*range(200)], lambda: pytest.fail("all of it is cached"))
    cached_kv = cache.match([*range(150), 7, 7, 7])
    assert torch.equal(cached_kv, kv_of(150))
    assert cache.match([*range(31)]) is None
    assert cache.match([*range(64)]).shape[2] == 63  # the logits of the last token have to be computed

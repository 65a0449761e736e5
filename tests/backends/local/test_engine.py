"""Many answers at once are the answers that transformers gives one at a time."""

import random

import pytest
import torch

from llama_vision import (
    ChatRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    Text,
    Tool,
    ToolChoice,
    image_from_any,
)
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.cuda_graphs import CudaGraphRunner
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.vision_encoder import VisionEncoder
from llama_vision.core.reply import Reply
from tests.drawing import one_shape, scene
from tests.hugging_face import (
    batch_of,
    generated,
    generated_together,
    row_mask_repaired,
    with_four_tiles,
)

SHORT = SamplingParams(max_tokens=48, temperature=0)


def ask(words, *images, sampling=SHORT, **options):
    parts = (*(image_from_any(image) for image in images), Text(words))
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling, **options)


def two_turns(first, second, words):
    """An image in each of two turns: the first is out of sight when the second has come."""
    return ChatRequest(
        "tiny",
        (
            Message("user", (image_from_any(first), Text("What color is it?"))),
            Message("assistant", (Text("red"),)),
            Message("user", (Text("And here?"), image_from_any(second), Text(words))),
        ),
        sampling=SHORT,
    )


def mixed(seed, *, forms=True):
    """One of many kinds of requests: with 0, 1 and 2 images, short and long, and where wanted some kept to a form."""
    image, color, shape = one_shape(seed)
    other = one_shape(seed + 500)[0]
    city = Tool("weather", "Tell the weather", {"properties": {"city": {"type": "string", "maxLength": 9}}})
    form = ResponseFormat("json_schema", schema={"properties": {"color": {"type": "string", "maxLength": 8}}})
    kinds = [
        ask(f"What color is the {shape}?", image),
        ask("Say hi"),
        ask("Describe the image.", image, other),
        ask("Repeat: " + "Paris London Berlin " * (1 + seed % 7)),
        two_turns(image, other, "Describe the image."),
        ask(f"What shape is {color}? Answer in many words, and say where it is.", image),
        ask("What color is it?", image, response_format=form),
        ask("What is the weather for Rome?", tools=(city,), tool_choice=ToolChoice("required")),
    ]
    return kinds[seed % (8 if forms else 6)]


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


@pytest.fixture(scope="module")
def tiled(loaded):
    return with_four_tiles(loaded)


def text_of(loaded, tokens):
    return loaded.tokenizer.decode(tokens, skip_special_tokens=False)


def answered(engine, requests, joining=None):
    """Answer requests, of which as many join at each step as `joining` says, or as there is room for."""
    events = [[] for _ in requests]
    waiting = [
        engine.answer_to(request, heard.append, lambda: False)
        for request, heard in zip(requests, events, strict=True)
    ]
    while waiting or engine.working:
        count = min(engine.free, engine.free if joining is None else joining())
        engine.add_sequences(waiting[:count])
        del waiting[:count]
        engine.step()
    return [Reply.from_events(heard) for heard in events]


@pytest.fixture(scope="module", params=[True, False], ids=["some kept to a form", "all free"])
def sixty_four(request, loaded):
    """Requests, and what transformers answers to each of them alone."""
    requests = [mixed(seed, forms=request.param) for seed in range(64)]
    expected = [text_of(loaded, generated(loaded, one)) for one in requests]
    assert len(set(expected)) > 30
    return requests, expected


@pytest.mark.parametrize("slots", [1, 3, 8, 16])
def test_sixty_four_mixed_requests_that_come_and_go_equal_each_one_alone(loaded, sixty_four, slots):
    requests, expected = sixty_four
    chance = random.Random(slots)
    engine = Engine(loaded, LocalSettings(max_batch_size=slots))
    replies = answered(engine, requests, lambda: chance.choice([0, 0, 1, 2, 5]))
    assert [reply.text for reply in replies] == expected


def test_plain_generate_gets_such_a_batch_wrong(tiled):
    """Transformers' row mask (its issue 39379): with it repaired, the same batch is right."""
    requests = [mixed(seed, forms=False) for seed in range(6)]
    alone = [generated(tiled, request) for request in requests]
    batch = batch_of(tiled, requests)
    assert generated_together(tiled, batch, repaired=True) == alone
    together = generated_together(tiled, batch, repaired=False)
    assert sum(ours != theirs for ours, theirs in zip(alone, together, strict=True)) >= 2
    engine = Engine(tiled, LocalSettings(max_batch_size=len(requests)))
    assert [reply.text for reply in answered(engine, requests)] == [text_of(tiled, one) for one in alone]


def test_the_error_of_plain_generate_is_no_rounding(tiled):
    """A row without an image takes something from its neighbour's."""
    batch = batch_of(tiled, [ask("Say hi"), ask("Say hi", one_shape(1)[0])])
    alone = batch_of(tiled, [ask("Say hi")])
    with torch.inference_mode():
        right = tiled.model(**alone).logits[0, -1]
        beside = tiled.model(**batch).logits[0, -1]
        with row_mask_repaired(tiled.model):
            repaired = tiled.model(**batch).logits[0, -1]
    assert (right - repaired).abs().max() < 1e-3
    assert (right - beside).abs().max() > 0.1


SIZES = [(90, 90), (180, 90), (90, 200), (190, 190), (384, 90), (500, 500), (96, 300)]


@pytest.mark.parametrize("slots", [1, 4])
def test_images_of_one_to_four_tiles(tiled, slots):
    requests = []
    for seed, size in enumerate(SIZES):
        image, other = one_shape(seed)[0].resize(size), one_shape(seed + 50)[0].resize(SIZES[seed % 5])
        requests += [ask("Describe the image.", image), ask("How many?", image, other), ask("Say hi")]
        requests.append(two_turns(other, image, "Describe the image."))
    replies = answered(Engine(tiled, LocalSettings(max_batch_size=slots)), requests)
    expected = [text_of(tiled, generated(tiled, request)) for request in requests]
    assert [reply.text for reply in replies] == expected
    assert len(set(expected)) > 10


def test_only_tiles_that_show_something_are_kept(tiled):
    engine = Engine(tiled, LocalSettings())
    patches = tiled.model.model.vision_model.num_patches
    for size, tiles in [((90, 90), 1), ((180, 90), 2), ((190, 190), 4)]:
        image = image_from_any(one_shape(1)[0].resize(size))
        pil_image = engine.vision_encoder.preprocess(image, 1)
        with torch.inference_mode():
            engine.vision_encoder.encode([pil_image])
        assert pil_image.kv.num_vision_tokens == tiles * patches


def test_a_prompt_longer_than_what_is_read_at_once(loaded):
    image = one_shape(5)[0]
    long = ChatRequest(
        "tiny",
        (Message("user", (Text("so " * 600), image_from_any(image), Text("and " * 600 + "Describe it."))),),
        sampling=SHORT,
    )
    requests = [long, ask("Say hi"), ask("Describe the image.", image)]
    replies = answered(Engine(loaded, LocalSettings(max_batch_size=3)), requests)
    assert replies[0].usage.input_tokens > 1200
    assert [reply.text for reply in replies] == [text_of(loaded, generated(loaded, one)) for one in requests]


class Rehearsal:
    """A recording without a GPU: it does the same work again with the numbers that are there then."""

    def __init__(self, work):
        self.work, self.scores = work, work()

    def replay(self):
        self.scores.copy_(self.work())


class RehearsedGraphs(CudaGraphRunner):
    """Everything about recorded steps but the recording: rounded shapes, rows that nobody is in."""

    def _capture(self, shape):
        rehearsal = Rehearsal(lambda: self._forward(self._static_inputs, shape))
        return rehearsal, rehearsal.scores


def test_steps_of_rounded_shapes_say_the_same(loaded, tiled):
    for model in (loaded, tiled):
        requests = [mixed(seed) for seed in range(24)]
        plain = answered(Engine(model, LocalSettings(max_batch_size=7)), requests)
        engine = Engine(model, LocalSettings(max_batch_size=7))
        engine._cuda_graphs = RehearsedGraphs(engine._decode_logits, 7, model.device)
        chance = random.Random(2)
        rounded = answered(engine, requests, lambda chance=chance: chance.choice([0, 1, 3]))
        assert [reply.text for reply in rounded] == [reply.text for reply in plain]
        assert 1 < len(engine._cuda_graphs._graphs) < 20


class NoGraphs(CudaGraphRunner):
    """On a GPU that can't record."""

    def _capture(self, shape):
        raise RuntimeError("operation not permitted when stream is capturing")


def test_where_steps_cannot_be_recorded_they_are_done_without(loaded):
    requests = [ask("Describe the image.", one_shape(1)[0]), ask("Repeat: Paris London")]
    engine = Engine(loaded, LocalSettings())
    engine._cuda_graphs = NoGraphs(engine._decode_logits, 16, loaded.device)
    with pytest.warns(UserWarning, match="take longer: operation not permitted"):
        replies = answered(engine, requests)
    assert replies == answered(Engine(loaded, LocalSettings()), requests)
    assert engine._cuda_graphs is None


def test_words_alone_stay_out_of_everything_that_sees(loaded):
    engine = Engine(loaded, LocalSettings())
    used = []
    parts = [loaded.model.model.vision_model]
    parts += [layer.mlp for layer in loaded.model.model.language_model.layers if hasattr(layer, "cross_attn")]
    hooks = [part.register_forward_hook(lambda part, *_: used.append(part)) for part in parts]
    try:
        answered(engine, [ask("Say hi"), ask("Repeat: Paris London")])
        assert used == []
        assert engine._kv_cache.cross_attention.rows == 0
        answered(engine, [ask("Describe the image.", one_shape(2)[0])])
        assert set(used) == set(parts)
    finally:
        for hook in hooks:
            hook.remove()


def test_a_image_is_looked_at_once(loaded):
    engine = Engine(loaded, LocalSettings(max_batch_size=4))
    first, second = one_shape(1)[0], one_shape(2)[0]
    answers = answered(engine, [ask("Describe the image.", first), ask("What color is it?", first, second)])
    assert engine.vision_encoder.num_encoded == 2
    again = answered(engine, [ask("Describe the image.", first), ask("What color is it?", first, second)])
    assert engine.vision_encoder.num_encoded == 2
    assert [reply.text for reply in again] == [reply.text for reply in answers]


def test_what_was_seen_is_kept_within_bounds_the_latest_used_longest(loaded):
    images = [scene(("red", "circle", seed, 1), ("blue", "star", 0, 0)) for seed in range(3)]
    image = VisionEncoder(loaded, 0).preprocess(image_from_any(images[0]), 1)
    with torch.inference_mode():
        VisionEncoder(loaded, 0).encode([image])
    size = image.kv.num_bytes
    engine = Engine(loaded, LocalSettings(image_cache_bytes=2 * size + 1))
    for number, looks in [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)]:
        answered(engine, [ask("Describe the image.", images[number])])
        assert (engine.vision_encoder.num_encoded, engine.vision_encoder.cached_bytes <= 2 * size) == (
            looks,
            True,
        )
    forgetful = Engine(loaded, LocalSettings(image_cache_bytes=0))
    for looks in (1, 2):
        answered(forgetful, [ask("Describe the image.", images[0])])
        assert (forgetful.vision_encoder.num_encoded, forgetful.vision_encoder.cached_bytes) == (looks, 0)

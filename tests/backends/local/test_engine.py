"""Continuous batching gives each request what transformers gives it alone."""

import platform
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import int4_linear
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.cuda_graphs import CudaGraphRunner
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.kernels import TORCH_KERNELS, triton_kernels
from llama_vision.backends.local.model_loader import load_model
from tests.drawing import one_shape, scene
from tests.eager_graphs import EagerGraphs
from tests.hugging_face import (
    generate,
    generate_batch,
    left_padded_batch,
    row_mask_repaired,
    with_four_tiles,
)
from tests.local_engine import add, counted_images, run, run_one
from tests.mixed_requests import SHORT, ask, mixed, two_turns
from tests.random_model import write_random_model


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


@pytest.fixture(scope="module")
def tiled(loaded):
    return with_four_tiles(loaded)


def decode(loaded, token_ids):
    return loaded.tokenizer.decode(token_ids, skip_special_tokens=False)


@pytest.fixture(
    scope="module",
    params=[True, pytest.param(False, marks=pytest.mark.slow)],
    ids=["some guided", "none guided"],
)
def sixty_four(request, loaded):
    """Requests, and what transformers replies to each of them alone."""
    requests = [mixed(seed, guided=request.param) for seed in range(64)]
    expected = [decode(loaded, generate(loaded, one)) for one in requests]
    assert len(set(expected)) > 30
    return requests, expected


@pytest.mark.parametrize(
    "batch_size", [pytest.param(size, marks=pytest.mark.slow) for size in (1, 3, 8)] + [16]
)
def test_sixty_four_mixed_requests_that_join_and_leave_equal_each_one_alone(loaded, sixty_four, batch_size):
    requests, expected = sixty_four
    chance = random.Random(batch_size)
    engine = Engine(loaded, LocalSettings(max_batch_size=batch_size))
    replies = run(engine, requests, lambda: chance.choice([0, 0, 1, 2, 5]))
    assert [reply.text for reply in replies] == expected


@pytest.mark.slow
def test_transformers_generate_gets_such_a_batch_wrong(tiled):
    """Transformers' row mask (its issue 39379): with it repaired, the same batch is right."""
    requests = [mixed(seed, guided=False) for seed in range(6)]
    alone = [generate(tiled, request) for request in requests]
    batch = left_padded_batch(tiled, requests)
    assert generate_batch(tiled, batch, repaired=True) == alone
    together = generate_batch(tiled, batch, repaired=False)
    assert sum(ours != theirs for ours, theirs in zip(alone, together, strict=True)) >= 2
    engine = Engine(tiled, LocalSettings(max_batch_size=len(requests)))
    assert [reply.text for reply in run(engine, requests)] == [decode(tiled, one) for one in alone]


def test_the_error_of_transformers_generate_is_not_rounding(tiled):
    """A row without an image attends to its neighbour's."""
    batch = left_padded_batch(tiled, [ask("Say hi"), ask("Say hi", one_shape(1)[0])])
    alone = left_padded_batch(tiled, [ask("Say hi")])
    with torch.inference_mode():
        right = tiled.model(**alone).logits[0, -1]
        batched = tiled.model(**batch).logits[0, -1]
        with row_mask_repaired(tiled.model):
            repaired = tiled.model(**batch).logits[0, -1]
    assert (right - repaired).abs().max() < 1e-3
    assert (right - batched).abs().max() > 0.1


SIZES = [(90, 90), (180, 90), (90, 200), (190, 190), (384, 90), (500, 500), (96, 300)]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_images_of_one_to_four_tiles(tiled, batch_size):
    requests = []
    for seed, size in enumerate(SIZES):
        image, other = one_shape(seed)[0].resize(size), one_shape(seed + 50)[0].resize(SIZES[seed % 5])
        requests += [ask("Describe the image.", image), ask("How many?", image, other), ask("Say hi")]
        requests.append(two_turns(other, image, "Describe the image."))
    replies = run(Engine(tiled, LocalSettings(max_batch_size=batch_size)), requests)
    expected = [decode(tiled, generate(tiled, request)) for request in requests]
    assert [reply.text for reply in replies] == expected
    assert len(set(expected)) > 10


def test_padding_tiles_have_no_vision_tokens(tiled):
    patches = tiled.model.model.vision_model.num_patches
    for size, tiles in [((90, 90), 1), ((180, 90), 2), ((190, 190), 4)]:
        engine = Engine(tiled, LocalSettings())
        sequence, _ = add(engine, ask("What?", one_shape(1)[0].resize(size)))
        (image,) = sequence.running_block_table.output_images
        assert image.num_vision_tokens == tiles * patches
        assert len(image.blocks.block_ids) == -(-tiles * patches // 32)


def test_a_prompt_longer_than_a_prefill_chunk(loaded):
    image = one_shape(5)[0]
    long = ChatRequest(
        "tiny",
        (Message("user", (Text("so " * 600), image_from_any(image), Text("and " * 600 + "Describe it."))),),
        sampling=SHORT,
    )
    requests = [long, ask("Say hi"), ask("Describe the image.", image)]
    replies = run(Engine(loaded, LocalSettings(max_batch_size=3)), requests)
    assert replies[0].usage.input_tokens > 1200
    assert [reply.text for reply in replies] == [decode(loaded, generate(loaded, one)) for one in requests]


@pytest.mark.slow
def test_decode_steps_as_in_cuda_graphs_give_the_same_replies(tiled, caplog):
    caplog.set_level("INFO", "llama_vision")
    requests = [mixed(seed) for seed in range(12)]
    expected = run(Engine(tiled, LocalSettings(max_batch_size=7)), requests)
    settings = LocalSettings(max_batch_size=7, max_model_len=200, kv_cache_bytes=60 * 49152)
    engine = Engine(tiled, settings)
    engine._cuda_graphs = engine._cuda_graph_runner(TORCH_KERNELS, EagerGraphs)
    chance = random.Random(2)
    replies = run(engine, requests, lambda: chance.choice([0, 1, 3]))
    assert [reply.text for reply in replies] == [reply.text for reply in expected]
    assert run_one(engine, requests[1]).text == expected[1].text  # without images
    # One for each batch size, whatever the lengths are.
    captured = set(engine._cuda_graphs._graphs)
    assert {num_seqs for num_seqs, _ in captured} <= {1, 2, 4, 7}
    assert {has_images for _, has_images in captured} == {True, False}
    assert "Captured a CUDA graph for 4 sequences, with images" in caplog.messages
    assert len(captured) == sum(message.startswith("Captured") for message in caplog.messages)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_decode_steps_of_triton_kernels_give_the_same_replies(quantization, tmp_path, monkeypatch):
    monkeypatch.setattr(int4_linear, "_packed_order", lambda: None)  # as on a GPU
    folder = write_random_model(tmp_path / "random")  # smaller than the tiny one: the interpreter is slow
    model = load_model(str(folder), LocalSettings(quantization=quantization))
    image, short = one_shape(1)[0], SamplingParams(max_tokens=4, temperature=0)
    requests = [
        ask("Say hi", sampling=short),
        ask("Describe the image.", image, sampling=short),
        ask("What color is it?", image, one_shape(2)[0], sampling=short),
    ]
    replies = []
    for kernels in (TORCH_KERNELS, triton_kernels()):
        engine = Engine(model, LocalSettings(max_batch_size=4))
        engine._cuda_graphs = engine._cuda_graph_runner(kernels, EagerGraphs)
        replies.append(run(engine, requests))
        assert engine._cuda_graphs is not None
    assert replies[0] == replies[1]


class NoGraphs(CudaGraphRunner):
    """On a GPU that can't capture."""

    def _capture(self, work):
        raise RuntimeError("operation not permitted when stream is capturing")


def does_not_compile(*_args, **_options):
    raise ValueError("operation not permitted on this GPU")


@pytest.mark.parametrize("kernel", [None, "fused_linear", "rope_and_cache", "paged_attention"])
def test_where_kernels_cannot_be_compiled_or_captured_decode_runs_without(loaded, caplog, kernel):
    requests = [ask("Describe the image.", one_shape(1)[0]), ask("Repeat: Paris London")]
    engine = Engine(loaded, LocalSettings())
    kernels = TORCH_KERNELS if kernel is None else replace(TORCH_KERNELS, **{kernel: does_not_compile})
    engine._cuda_graphs = engine._cuda_graph_runner(kernels, EagerGraphs if kernel else NoGraphs)
    with pytest.warns(UserWarning, match="take longer.*captured: operation not permitted"):
        replies = run(engine, requests)
    assert replies == run(Engine(loaded, LocalSettings()), requests)
    assert engine._cuda_graphs is None
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.name == "llama_vision"
    assert "operation not permitted" in record.message


def test_text_only_requests_skip_vision_and_cross_attention(loaded):
    engine = Engine(loaded, LocalSettings())
    used = []
    parts = [loaded.model.model.vision_model.patch_embedding]
    layers = loaded.model.model.language_model.layers
    parts += [layer.mlp.down_proj for layer in layers if hasattr(layer, "cross_attn")]
    hooks = [part.register_forward_hook(lambda part, *_: used.append(part)) for part in parts]
    try:
        run(engine, [ask("Say hi"), ask("Repeat: Paris London")])
        assert used == []
        run(engine, [ask("Describe the image.", one_shape(2)[0])])
        assert set(used) == set(parts)
    finally:
        for hook in hooks:
            hook.remove()


def test_an_image_is_encoded_once(loaded):
    engine = Engine(loaded, LocalSettings(max_batch_size=4))
    first, second = one_shape(1)[0], one_shape(2)[0]
    requests = [ask("Describe the image.", first), ask("What color is it?", first, second)]
    with counted_images(loaded) as encoded:
        replies = run(engine, requests)
        assert sum(encoded) == 2
        again = run(engine, requests)
        assert sum(encoded) == 2
    assert [reply.text for reply in again] == [reply.text for reply in replies]


def test_the_encoder_cache_evicts_the_least_recently_used(loaded):
    images = [scene(("red", "circle", seed, 1), ("blue", "star", 0, 0)) for seed in range(3)]
    any_engine = Engine(loaded, LocalSettings())
    sequence, _ = add(any_engine, ask("What?", images[0]))
    num_blocks = len(sequence.running_block_table.output_images[0].blocks.block_ids)
    block_bytes = any_engine._kv_caches[0].num_bytes // any_engine._kv_caches[0].num_blocks
    engine = Engine(loaded, LocalSettings(image_cache_bytes=2 * num_blocks * block_bytes + 1))
    with counted_images(loaded) as encoded:
        for number, expected in [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)]:
            run_one(engine, ask("Describe the image.", images[number]))
            assert sum(encoded) == expected
            assert engine._encoder_cache.num_unused_blocks <= 2 * num_blocks
    without_cache = Engine(loaded, LocalSettings(image_cache_bytes=0))
    with counted_images(loaded) as encoded:
        for expected in (1, 2):
            run_one(without_cache, ask("Describe the image.", images[0]))
            assert (sum(encoded), without_cache._encoder_cache.num_unused_blocks) == (expected, 0)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other allocators keep freed memory by rules of their own"
)
def test_memory_that_is_freed_is_not_taken_anew_from_the_kernel():
    """In a process of its own, as what the tests have freed before counts."""
    source = (
        "import resource, torch\n"
        "from llama_vision.backends.local.config import LocalSettings\n"
        "from llama_vision.backends.local.engine import Engine\n"
        "from llama_vision.backends.local.model_loader import load_model\n"
        "Engine(load_model('tiny'), LocalSettings())\n"
        "torch.ones(2**22)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "torch.ones(2**22)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # of 4,096 pages

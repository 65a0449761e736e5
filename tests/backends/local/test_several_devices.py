"""A model on several devices replies as it does on one: with images, shared prefixes, preemption, drafts and grammars.

Torch's own devices but the CPU are not there, so these are `far:0` and `far:1` of `tests.far_devices`, and the CPU.
"""

import contextlib
from dataclasses import replace

import pytest
import torch

from llama_vision import SamplingParams
from llama_vision.backends.local import engine as engine_module
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from tests.drawing import one_shape
from tests.far_devices import HAS_FAR_DEVICES, far_devices
from tests.local_engine import add, counted_tokens, run, run_one
from tests.mixed_requests import SHORT, ask, mixed

LAYER = "model.language_model.layers."
FIRST, SECOND = ("far:0", "far:1") if HAS_FAR_DEVICES else ("cpu:0", "cpu:1")  # which torch takes for one
TWO = {"": FIRST, f"{LAYER}2": SECOND, f"{LAYER}3": SECOND, f"{LAYER}4": SECOND, f"{LAYER}5": SECOND}
TWO["lm_head"] = SECOND
THERE_AND_BACK = {
    "": FIRST,
    f"{LAYER}1": "cpu",
    f"{LAYER}2": SECOND,
    f"{LAYER}4": "cpu",
    "model.vision_model": "cpu",
}


@pytest.fixture
def moves():
    """Copies between devices: (from, to, shape)."""
    with far_devices() if HAS_FAR_DEVICES else contextlib.nullcontext([]) as moves:
        yield moves


def engines(device_map, **settings):
    """An engine on one device, and one on several."""
    settings = {"dtype": "float32", **settings}
    one, several = LocalSettings(device="cpu", **settings), LocalSettings(device_map=device_map, **settings)
    return [Engine(load_model("tiny", its), its) for its in (one, several)]


@pytest.mark.parametrize(
    "device_map",
    [
        pytest.param(TWO, id="two"),
        pytest.param(THERE_AND_BACK, id="there and back", marks=pytest.mark.slow),
    ],
)
def test_replies_are_those_of_one_device(moves, device_map):
    requests = [mixed(seed) for seed in (2, 4, 6, 7)]  # two images, images in two turns, a schema, a tool
    one, several = engines(device_map, max_batch_size=3)
    assert run(several, requests) == run(one, requests)


@pytest.mark.skipif(not HAS_FAR_DEVICES, reason="this torch takes no devices that are written in Python")
def test_tensors_of_two_devices_do_not_mix(moves):
    there = torch.ones(2, 3, device="far:0")
    for other in (torch.ones(3, device="far:1"), torch.ones(3)):
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            there + other
    assert (there + other.to("far:0")).tolist() == [[2.0] * 3] * 2
    assert moves[-1] == ("cpu", "far:0", (3,))


@pytest.mark.skipif(not HAS_FAR_DEVICES, reason="this torch takes no devices that are written in Python")
def test_a_decode_step_moves_hidden_states_positions_and_block_tables_once(moves):
    _, engine = engines(TWO, max_batch_size=2)
    add(engine, ask("Repeat: " + "Paris London Berlin " * 4))
    engine.step()
    del moves[:]
    engine.step()
    between = [shape for source, target, shape in moves if (source, target) == (FIRST, SECOND)]
    # Positions and block table of the one sequence; its hidden state, and the cosine and sine of its position.
    assert sorted(map(len, between)) == [1, 2, 2, 2, 2]
    assert (1, engine._decoder._weights.norm.shape[0]) in between
    assert not [one for one in moves if one[:2] == (SECOND, FIRST)]


def test_a_prefix_and_an_image_that_are_cached_are_found_on_all_devices(moves):
    one, several = engines(TWO)
    image = one_shape(3)[0]
    questions = [ask("so " * 60 + "Describe the image.", image), ask("so " * 60 + "What color is it?", image)]
    expected = [run_one(one, question) for question in questions]
    replies = [run_one(several, question) for question in questions]
    assert replies == expected
    assert replies[1].usage.cached_input_tokens > 32


@pytest.mark.slow
def test_preempted_sequences_go_on_on_all_devices(moves, caplog):
    caplog.set_level("INFO", "llama_vision")
    image = one_shape(1)[0]
    sampling = replace(SHORT, max_tokens=60)
    request = ask("1 Repeat: " + "Paris London Berlin " * 8, image, sampling=sampling)  # 100 tokens in all
    one, _ = engines(TWO)
    expected = run_one(one, request).text
    settings = LocalSettings(device_map=TWO, dtype="float32", prefix_cache_bytes=0)
    loaded = load_model("tiny", settings)
    kv_caches = Engine(loaded, settings)._kv_caches
    block_bytes = sum(its.num_bytes for its in kv_caches) // kv_caches[0].num_blocks
    engine = Engine(loaded, replace(settings, kv_cache_bytes=24 * block_bytes))
    assert [reply.text for reply in run(engine, [request] * 3)] == [expected] * 3
    assert any("preempted" in message for message in caplog.messages)


def test_random_sampling_is_that_of_one_device(moves):
    one, several = engines({**TWO, "lm_head": "cpu"})
    request = ask("Say hi", sampling=SamplingParams(max_tokens=12, temperature=5.0, seed=3))
    assert run_one(several, request) == run_one(one, request)


def test_drafts_are_verified_on_all_devices(moves, monkeypatch):
    monkeypatch.setattr(engine_module, "pays_prompt_lookup", lambda device, count: True)
    one, several = engines(TWO)
    request = ask("Repeat: " + "Paris London Berlin " * 4)
    expected = run_one(one, request)
    with counted_tokens(load_model("tiny", LocalSettings(device_map=TWO, dtype="float32"))) as counts:
        assert run_one(several, request) == expected
    assert max(counts[1:]) > 3


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantized_layers_are_on_their_own_device(moves, quantization):
    one, several = engines(TWO, quantization=quantization)
    request = mixed(0)
    assert run_one(several, request).text == run_one(one, request).text
    loaded = load_model("tiny", LocalSettings(device_map=TWO, dtype="float32", quantization=quantization))
    devices = {str(buffer.device) for buffer in loaded.model.buffers()}
    assert devices == {str(torch.empty(0, device=name).device) for name in (FIRST, SECOND)}


def test_who_has_layers_on_the_cpu_is_told_what_it_costs(moves, caplog):
    if not HAS_FAR_DEVICES:
        pytest.skip("all devices are the CPU")
    load_model("tiny", LocalSettings(device_map=THERE_AND_BACK, dtype="bfloat16"))
    (said,) = [message for message in caplog.messages if "on the CPU" in message]
    assert said.startswith("2 of 6 layers of tiny run on the CPU")


def test_settings_that_differ_in_the_device_map_have_their_own_weights(moves):
    loaded = load_model("tiny", LocalSettings(device_map=TWO))
    assert load_model("tiny", LocalSettings(device_map=dict(reversed(TWO.items())))) is loaded
    assert load_model("tiny", replace(LocalSettings(), device_map=THERE_AND_BACK)) is not loaded

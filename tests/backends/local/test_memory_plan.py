"""What a model takes is said before it is loaded, and what would fit where it does not."""

from dataclasses import replace

import pytest
import torch
from transformers import MllamaConfig

from llama_vision.backends.local import LocalSettings, memory_plan
from llama_vision.backends.local.memory_plan import advice, check_memory, free_memory, plan_memory
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError
from tests.hugging_face import ASPECT_RATIOS

CPU = torch.device("cpu")
GB = 10**9


@pytest.fixture(scope="module")
def eleven_b():
    """The 11B's configuration, as published."""
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    text = {"max_position_embeddings": 131072, "rope_parameters": rope}
    vision = {"image_size": 560, "supported_aspect_ratios": ASPECT_RATIOS}
    return MllamaConfig(text_config=text, vision_config=vision, dtype="bfloat16")


@pytest.fixture
def with_free(monkeypatch):
    """Say how much memory is free."""

    def set_free(num_bytes):
        monkeypatch.setattr(memory_plan, "free_memory", lambda _: num_bytes)

    return set_free


def test_the_11b_takes_what_is_known_of_it(eleven_b, with_free):
    with_free(80 * GB)
    plan = plan_memory(eleven_b, CPU, LocalSettings(max_batch_size=1, max_model_len=10_000))
    assert plan.weights == pytest.approx(21.3 * GB, rel=0.005)
    # 131,072 bytes a token, and 53 MB for each of four tiles.
    assert plan.kv_cache == pytest.approx(131_072 * 10_000 + 4 * 52.5e6, rel=0.01)
    assert plan.fits
    quantized = plan_memory(eleven_b, CPU, LocalSettings(quantization="int8"))
    assert 0.5 * plan.weights < quantized.weights < 0.6 * plan.weights


def test_the_tiny_model_takes_what_was_planned():
    loaded = load_model("tiny", LocalSettings(device="cpu", dtype="bfloat16"))
    plan = plan_memory(loaded.model.config, CPU, LocalSettings(dtype="bfloat16"))
    assert plan.weights == pytest.approx(loaded.num_bytes, rel=0.001)
    quantized = load_model("tiny", LocalSettings(device="cpu", dtype="bfloat16", quantization="int8"))
    plan = plan_memory(loaded.model.config, CPU, LocalSettings(dtype="bfloat16", quantization="int8"))
    assert plan.weights == pytest.approx(quantized.num_bytes, rel=0.02)


@pytest.mark.parametrize(("free", "expected"), [(80, None), (30, "int8"), (14, "int8")])
def test_auto_takes_the_best_that_fits(eleven_b, with_free, free, expected):
    with_free(free * GB)
    plan = plan_memory(eleven_b, CPU, LocalSettings(quantization="auto"))
    assert plan.settings.quantization == expected


def test_what_cannot_be_loaded_is_refused_with_what_fits(eleven_b, with_free):
    with_free(16 * GB)
    text = (
        r"the model does not fit into the memory of cpu: weights 21.3 GB \+ KV cache .* free on cpu: 16.0 GB. "
        r"This fits: LocalSettings\(max_batch_size=4, .*quantization='int8'"
    )
    with pytest.raises(LocalModelError, match=text):
        check_memory("the model", eleven_b, CPU, LocalSettings())


def test_what_it_says_fits_does_fit(eleven_b, with_free):
    with_free(16 * GB)
    plan = plan_memory(eleven_b, CPU, LocalSettings())
    said = advice(eleven_b, plan).removeprefix("This fits: ").removesuffix(".")
    assert plan_memory(eleven_b, CPU, eval(said)).fits  # noqa: S307 - our own text


@pytest.mark.slow
def test_where_nothing_fits_a_server_is_named(eleven_b, with_free):
    with_free(8 * GB)
    with pytest.raises(
        LocalModelError, match=r"No setting makes it fit here.*sglang.launch_server --model-path MODEL --tp 4"
    ):
        check_memory("the model", eleven_b, CPU, LocalSettings(quantization="auto"))


def test_a_tight_fit_is_loaded_with_a_warning(with_free, caplog):
    config = load_model("tiny").model.config
    with_free(10**8)
    assert plan_memory(config, CPU, LocalSettings()).can_load
    load_model("tiny", LocalSettings(device="cpu", dtype="float16"))
    assert "tiny may run out of memory: weights 0.0 GB + KV cache" in caplog.messages[0]


def test_unknown_free_memory_refuses_nothing(eleven_b, with_free):
    with_free(None)
    plan = check_memory("the model", eleven_b, CPU, LocalSettings(quantization="auto"))
    assert plan.settings.quantization is None
    assert str(plan).endswith("free on cpu: unknown")


def test_free_memory_of_the_cpu_is_known():
    assert 10**7 < (free_memory(CPU) or 0) < 10**14
    assert free_memory(torch.device("meta")) is None


def test_auto_loads(caplog):
    caplog.set_level("INFO", "llama_vision")
    settings = LocalSettings(device="cpu", quantization="auto")
    assert load_model("tiny", settings).model.dtype == torch.float32
    assert load_model("tiny", settings) is not load_model("tiny", replace(settings, quantization=None))
    assert "quantization None" in caplog.messages[0]

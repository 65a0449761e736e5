"""What a model takes is said before it is loaded, and what would fit where it does not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llama_vision.backends.local import LocalSettings, memory_plan
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.memory_plan import advice, check_memory, plan_memory
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError
from tests.hugging_face import published_config

CPU = torch.device("cpu")
GB = 10**9
GIB = 2**30
PAGE = Path(__file__).parents[3] / "docs" / "local.md"


@pytest.fixture(scope="module")
def eleven_b():
    """The 11B's configuration, as published."""
    return published_config()


@pytest.fixture
def with_free(monkeypatch):
    """Say how much memory is free."""

    def set_free(num_bytes):
        monkeypatch.setattr(memory_plan, "free_memory", lambda _: num_bytes)

    return set_free


def test_the_11b_takes_what_is_known_of_it(eleven_b, with_free):
    with_free(80 * GB)
    plan = plan_memory(eleven_b, [CPU], LocalSettings(max_batch_size=1, max_model_len=10_000))
    assert plan.weights == pytest.approx(21.3 * GB, rel=0.005)
    # 131,072 bytes a token, and 53 MB for each of four tiles; the caches.
    assert plan.kv_cache == pytest.approx(131_072 * 10_000 + 4 * 52.5e6 + 1.25 * GIB, rel=0.01)
    assert plan.fits
    quantized = plan_memory(eleven_b, [CPU], LocalSettings(quantization="int8"))
    assert 0.5 * plan.weights < quantized.weights < 0.6 * plan.weights


def test_the_engine_takes_what_was_planned():
    settings = LocalSettings(device="cpu", max_batch_size=3, max_model_len=500, image_cache_bytes=0)
    loaded = load_model("tiny", settings)
    plan = plan_memory(loaded.model.config, [CPU], settings)
    (kv_cache,) = Engine(loaded, settings)._kv_caches
    taken = kv_cache.num_bytes
    assert plan.kv_cache == pytest.approx(taken, rel=0.01)


@pytest.mark.parametrize(("free", "expected"), [(80, None), (40, "int8"), (14, "int4")])
def test_auto_takes_the_best_that_fits(eleven_b, with_free, free, expected):
    with_free(free * GB)
    plan = plan_memory(eleven_b, [CPU], LocalSettings(quantization="auto"))
    assert plan.settings.quantization == expected


def test_what_cannot_be_loaded_is_refused_with_what_fits(eleven_b, with_free):
    with_free(16 * GB)
    text = (
        r"the model does not fit into the memory of cpu: weights 21.3 GB \+ .* free on cpu: 16.0 GB, of which 0.0 GB .*"
        r"This fits: LocalSettings\(max_batch_size=4, .*quantization='int8'"
    )
    with pytest.raises(LocalModelError, match=text):
        check_memory("the model", eleven_b, [CPU], LocalSettings())


def test_what_it_says_fits_does_fit(eleven_b, with_free):
    with_free(16 * GB)
    said = advice(eleven_b, [CPU], LocalSettings()).removeprefix("This fits: ").removesuffix(".")
    assert plan_memory(eleven_b, [CPU], eval(said)).fits  # noqa: S307 - our own text


@pytest.mark.slow
def test_where_nothing_fits_a_server_is_named(eleven_b, with_free):
    with_free(8 * GB)
    with pytest.raises(
        LocalModelError, match=r"No setting makes it fit here.*sglang.launch_server --model-path MODEL --tp 4"
    ):
        check_memory("the model", eleven_b, [CPU], LocalSettings(quantization="auto"))


def test_a_tight_fit_is_loaded_with_a_warning(with_free, caplog):
    config = load_model("tiny").model.config
    with_free(10**8)
    assert plan_memory(config, [CPU], LocalSettings()).can_load
    load_model("tiny", LocalSettings(device="cpu", dtype="float16"))
    assert "tiny gets a smaller KV cache than its settings can use: weights 0.0 GB + " in caplog.messages[0]


def test_unknown_free_memory_refuses_nothing(eleven_b, with_free):
    with_free(None)
    plan = check_memory("the model", eleven_b, [CPU], LocalSettings(quantization="auto"))
    assert plan.settings.quantization is None
    assert str(plan).endswith("free on cpu: unknown")


def table():
    """Rows of the page: gigabytes of the card, and what its cells say by the kind of weights."""
    rows = re.findall(
        r"^\| (\d+) GB \| (.*) \| (.*) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {int(size): dict(zip((None, "int8", "int4"), cells, strict=True)) for size, *cells in rows}


def test_the_table_names_all_cards():
    assert list(table()) == [8, 12, 16, 24, 48, 80]


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_the_table_says_what_fits(eleven_b, with_free, quantization):
    with_free(0)
    plan = plan_memory(eleven_b, [torch.device("cuda")], LocalSettings(quantization=quantization))
    (gpu,) = plan.devices
    for size, told in table().items():
        # The driver and the libraries take half a gigabyte of a card.
        its_plan = replace(plan, devices=(replace(gpu, free=size * GIB - GIB // 2),))
        tokens = its_plan.max_kv_cache_tokens // 1000 * 1000
        assert told[quantization] == (f"{tokens:,} tokens" if tokens else "does not fit")


def test_a_kv_cache_of_a_given_size_is_planned_as_such(eleven_b, with_free):
    with_free(30 * GB)
    plan = plan_memory(eleven_b, [CPU], LocalSettings(kv_cache_bytes=3 * 10**9))
    assert plan.kv_cache == pytest.approx(3 * GB, rel=0.01)
    assert plan.fits
    assert not plan_memory(eleven_b, [CPU], LocalSettings()).fits


def test_auto_loads(caplog):
    caplog.set_level("INFO", "llama_vision")
    settings = LocalSettings(device="cpu", quantization="auto")
    assert load_model("tiny", settings).model.dtype == torch.float32
    assert load_model("tiny", settings) is not load_model("tiny", replace(settings, quantization=None))
    assert "quantization None" in caplog.messages[0]

"""Which device each module goes to: GPUs in order, the CPU as the last resort, or as the user says."""

import re
from pathlib import Path

import pytest
import torch

from llama_vision.backends.local import LocalSettings, memory_plan, parse_local_settings
from llama_vision.backends.local.device_map import (
    LM_HEAD,
    VISION_MODEL,
    describe_modules,
    modules_by_device,
    pipeline_stages,
    resolve_device_map,
)
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.memory_plan import advice, check_memory, plan_memory
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.weights import empty_model
from llama_vision.core.errors import ConfigurationError, LocalModelError
from tests.hugging_face import OF_THE_90B, published_config

GIB = 2**30
CPU = torch.device("cpu")
AUTO = LocalSettings(device_map="auto")
LAYER = "model.language_model.layers."
PAGE = Path(__file__).parents[3] / "docs" / "local.md"


@pytest.fixture(scope="module")
def configs():
    return {"11B": published_config(), "90B": published_config(**OF_THE_90B)}


@pytest.fixture(scope="module")
def empty_models(configs):
    return {id(config): empty_model(config, {}) for config in configs.values()}


@pytest.fixture
def machine(monkeypatch, empty_models):
    """Make a machine of GPUs with so many GiB each, half a gibibyte of it the driver's, and a CPU: its devices."""

    def make(*gpus, cpu=None):
        devices = [torch.device("cuda", index) for index in range(len(gpus))]
        free = {one: round(gib * GIB) - GIB // 2 for one, gib in zip(devices, gpus, strict=True)}
        if cpu is not None:
            devices.append(CPU)
            free[CPU] = cpu * GIB
        monkeypatch.setattr(memory_plan, "empty_model", lambda config, _: empty_models[id(config)])  # once
        monkeypatch.setattr(memory_plan, "free_memory", free.__getitem__)
        monkeypatch.setattr(memory_plan, "auto_devices", lambda: devices)
        return devices

    return make


def split(plan):
    return {str(one.device): describe_modules(one.modules) for one in plan.devices}


@pytest.mark.parametrize(
    ("size", "gpus", "cpu", "settings", "expected"),
    [
        ("11B", [48], 64, {}, ["vision encoder, embedding, layers 0-39, LM head"]),
        ("11B", [48, 48], 64, {}, ["vision encoder, embedding, layers 0-39, LM head"]),
        ("11B", [24, 24], 64, {}, ["vision encoder, embedding, layers 0-19", "layers 20-39, LM head"]),
        # A smaller KV cache than is of use, before the CPU gets anything.
        ("11B", [16, 16], 64, {}, ["vision encoder, embedding, layers 0-17", "layers 18-39, LM head"]),
        ("11B", [24], 64, {}, ["vision encoder, embedding, layers 0-39, LM head"]),
        ("11B", [5, 24, 24], 0, {}, ["vision encoder", "embedding, layers 0-19", "layers 20-39, LM head"]),
        ("11B", [1, 48], 0, {}, [None, "vision encoder, embedding, layers 0-39, LM head"]),
        ("11B", [12], 64, {}, ["vision encoder, embedding, layers 0-7", "layers 8-39, LM head"]),
        ("11B", [12], 64, {"quantization": "auto"}, ["vision encoder, embedding, layers 0-39, LM head"]),
        ("11B", [], 64, {}, ["vision encoder, embedding, layers 0-39, LM head"]),
        (
            *("90B", [80, 80, 80, 80], 256, {}),
            ["vision encoder, embedding, layers 0-31", "layers 32-66", "layers 67-99, LM head"],
        ),
        (
            *("90B", [80, 80], 256, {}),
            ["vision encoder, embedding, layers 0-37", "layers 38-77", "layers 78-99, LM head"],
        ),
        (
            *("90B", [80, 80], 256, {"quantization": "auto"}),
            ["vision encoder, embedding, layers 0-49", "layers 50-99, LM head"],
        ),
        (
            *("90B", [24, 24], 64, {"quantization": "int4", "max_batch_size": 1}),
            ["vision encoder, embedding, layers 0-39", "layers 40-85", "layers 86-99, LM head"],
        ),
    ],
)
def test_layers_go_to_the_gpus_in_order_and_to_the_cpu_last(
    configs, machine, size, gpus, cpu, settings, expected
):
    devices = machine(*gpus, cpu=cpu)
    plan = plan_memory(configs[size], devices, LocalSettings(device_map="auto", **settings))
    names = map(str, devices)
    assert split(plan) == {name: its for name, its in zip(names, expected, strict=False) if its}
    assert plan.can_load


@pytest.mark.parametrize(("size", "gpus"), [("11B", [9, 9, 9, 9]), ("90B", [48, 48, 48, 48, 48])])
def test_no_device_gets_more_than_it_has_where_none_has_room_for_the_model(configs, machine, size, gpus):
    devices = machine(*gpus, cpu=0)
    plan = plan_memory(configs[size], devices, AUTO)
    assert max(gpus) * GIB < plan.weights
    assert plan.can_load
    for one in plan.devices:
        assert 0 < one.weights + one.working + plan.min_blocks * one.block_bytes <= 0.95 * one.free
    assert plan.cpu_layers == 0
    assert sum(one.weights for one in plan.devices) == plan.weights


def test_what_fits_nowhere_is_refused_with_each_device_and_what_would_do(configs, machine):
    devices = machine(8, 8, cpu=4)
    with pytest.raises(LocalModelError) as refused:
        check_memory("the 11B", configs["11B"], devices, AUTO)
    text = str(refused.value)
    assert text.startswith("the 11B does not fit into the memory of cuda:0, cuda:1, cpu: weights 21.3 GB + ")
    assert "vision encoder, embedding, layers 0-" in text
    assert "free on cuda:1: 8.1 GB, of which" in text
    assert re.search(r"This fits: LocalSettings\(max_batch_size=1, .*quantization='int8'\)\.$", text)
    with pytest.raises(LocalModelError, match=r"No setting makes it fit.*sglang.launch_server .*--nnodes 2"):
        check_memory("the 90B", configs["90B"], devices, AUTO)


@pytest.mark.parametrize(
    ("gpus", "text"),
    [
        ([24, 24], "This fits: LocalSettings(device_map='auto')."),
        ([16], "This fits: LocalSettings(max_batch_size=4, "),  # not layers on the CPU
        ([8], "This fits: LocalSettings(device_map='auto')."),  # but before nothing
    ],
)
def test_who_has_more_devices_than_one_is_told_of_them(configs, machine, gpus, text):
    devices = machine(*gpus, cpu=64)
    assert advice(configs["11B"], devices[:1], LocalSettings()).startswith(text)


def test_layers_on_the_cpu_are_counted_where_there_is_a_gpu(configs, machine):
    assert plan_memory(configs["11B"], machine(12, cpu=64), AUTO).cpu_layers == 32
    assert plan_memory(configs["11B"], machine(cpu=64), AUTO).cpu_layers == 0


def test_the_longest_name_decides_as_in_transformers():
    settings = LocalSettings(
        device_map={
            "": 0,
            "model.language_model": "cuda:1",
            f"{LAYER}2": "cpu",
            LM_HEAD: 0,
        }
    )
    devices = {name: torch.device(one) for name, one in settings.device_map.items()}
    device_map = resolve_device_map(devices, 4)
    assert {str(device): describe_modules(its) for device, its in modules_by_device(device_map).items()} == {
        "cuda:0": "vision encoder, LM head",
        "cuda:1": "embedding, layers 0-1, layer 3",
        "cpu": "layer 2",
    }
    stages = [(str(stage.device), [*stage.layers]) for stage in pipeline_stages(device_map)]
    assert stages == [("cuda:1", [0, 1]), ("cpu", [2]), ("cuda:1", [3])]


@pytest.mark.parametrize(
    ("device_map", "text"),
    [
        ("balanced", "has to be 'auto' or a mapping"),
        ("cuda:1", "For one device it is device='cuda:1'"),
        (["cpu"], "has to be 'auto' or a mapping"),
        ({f"{LAYER}0.mlp": 0}, "divides no layer. It has no module 'model.language_model.layers.0.mlp'"),
        ({"language_model.model": 0}, "It has no module 'language_model.model'"),
        ({1: 0}, "It has no module 1"),
        ({"": "disk"}, "devices such as 0, 'cuda:1' or 'cpu', and that of '' is 'disk'"),
        ({"": True}, "that of '' is True"),
        ({"": -1}, "that of '' is -1"),
    ],
)
def test_what_no_device_map_is_is_refused(device_map, text):
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        parse_local_settings({"device_map": device_map})


def test_one_device_and_several_at_once_are_refused():
    with pytest.raises(ConfigurationError, match="leave one out"):
        LocalSettings(device="cuda", device_map="auto")


def test_settings_with_a_device_map_keep_it_and_have_a_hash():
    given = {"": 0, LM_HEAD: "cuda"}
    settings = LocalSettings(device_map=given)
    given[""] = "cpu"
    assert settings.device_map == {"": "cuda:0", LM_HEAD: "cuda:0"}
    assert len({settings, LocalSettings(device_map={"": 0, LM_HEAD: 0}), LocalSettings()}) == 2


@pytest.mark.parametrize(
    ("device_map", "text"),
    [
        ({f"{LAYER}0": "cpu"}, "no device for model.vision_model"),
        ({"": "cpu", f"{LAYER}6": "cpu"}, "names model.language_model.layers.6, and this model has 6 layers"),
        (
            {"": "cpu", LM_HEAD: "meta", "model.language_model.norm": "cpu"},
            "has to put model.language_model.norm and lm_head on one device",
        ),
        ({"": "cpu", VISION_MODEL: "cuda:77"}, "can't use a device 'cuda:77'"),
    ],
)
def test_a_device_map_that_does_not_match_the_model_is_refused(device_map, text):
    with pytest.raises(LocalModelError, match=text):
        load_model("tiny", LocalSettings(device_map=device_map))


def test_each_layer_is_loaded_to_its_own_device():
    loaded = load_model("tiny", LocalSettings(device_map={"": "cpu", f"{LAYER}3": "meta"}))
    found = {name: str(one.device) for name, one in loaded.model.named_parameters()}
    assert {name for name, device in found.items() if device == "meta"} == {
        name for name in found if name.startswith(f"{LAYER}3.")
    }
    assert str(loaded.device_map[f"{LAYER}3"]) == "meta"


def test_auto_is_one_device_where_there_is_no_gpu():
    loaded = load_model("tiny", LocalSettings(device_map="auto"))
    assert set(map(str, loaded.device_map.values())) <= {"cpu", "mps", "cuda:0"}
    assert len(Engine(loaded, LocalSettings(max_batch_size=1))._kv_caches) == 1


def table():
    """Rows of the page: the model, its GPUs, and what its cells say by the kind of weights."""
    rows = re.findall(
        r"^\| (11B|90B), (\d+) x (\d+) GB \| (.*) \| (.*) \| (.*) \|$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return [(name, [int(gib)] * int(count), cells) for name, count, gib, *cells in rows]


def test_the_table_says_what_fits_on_several_gpus(configs, machine):
    assert len(table()) == 8
    for name, gpus, cells in table():
        devices = machine(*gpus)
        for quantization, told in zip((None, "int8", "int4"), cells, strict=True):
            settings = LocalSettings(device_map="auto", quantization=quantization)
            tokens = plan_memory(configs[name], devices, settings).max_kv_cache_tokens // 1000 * 1000
            assert told == (f"{tokens:,} tokens" if tokens else "does not fit"), (name, gpus, quantization)

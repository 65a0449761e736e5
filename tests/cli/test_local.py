"""`llama-vision local check` says what fits, before anything is loaded."""

import re

import pytest
import torch

from llama_vision.backends.local import memory_plan, model_loader
from llama_vision.cli import local, main
from tests.gguf_models import write_gguf
from tests.quantized_models import write_quantized


def test_a_table_says_what_the_tiny_model_takes(capsys):
    assert main(["local", "check", "tiny", "--device", "cpu"]) == 0
    first, device, header, *rows, last = capsys.readouterr().out.splitlines()
    assert first == "tiny: bfloat16, 6 layers, context of 2,048 tokens"
    assert re.fullmatch(r"cpu: [\d.]+ GB free", device)
    assert header.split() == [
        "quantization",
        "weights",
        "activations",
        "KV",
        "cache",
        "total",
        "room",
        "for",
        "fits",
    ]
    assert [row.split()[0] for row in rows] == ["none", "int8", "int4"]
    assert all(row.endswith("yes") for row in rows)
    assert last == 'quantization="auto" takes none.'


def test_a_table_says_which_layers_go_where(capsys, monkeypatch):
    devices = [torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")]
    free = dict(zip(devices, (1.25e9, 4e9, 8e9), strict=True))
    monkeypatch.setattr(model_loader, "auto_devices", lambda: devices)
    for module in (memory_plan, local):
        monkeypatch.setattr(module, "free_memory", free.__getitem__)
    monkeypatch.setattr(local, "_quantizations", lambda _: [None, "int8"])  # torch would ask the GPUs
    arguments = ["local", "check", "tiny", "--device-map", "auto", "--max-batch-size", "1"]
    assert main(arguments) == 0
    *_, header, first, second, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["device", "weights", "activations", "KV", "cache", "modules"]
    assert re.split(r" {2,}", first) == ["cuda:0", "0.0 GB", "1.1 GB", "0.0 GB", "vision encoder, embedding"]
    assert re.split(r" {2,}", second) == ["cuda:1", "0.0 GB", "1.1 GB", "1.3 GB", "layers 0-5, LM head"]


def test_kinds_are_named(capsys, tmp_path):
    path, *_ = write_gguf(tmp_path / "gguf", "Q8_0")
    folder = write_quantized(tmp_path / "folder", "AWQ int4")
    for model, kind in ((path, "GGUF Q8_0"), (folder, "AWQ int4")):
        assert main(["local", "check", str(model)]) == 0
        assert capsys.readouterr().out.startswith(f"{model}: {kind}, 6 layers")


def test_what_does_not_fit_ends_with_advice(capsys, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory", lambda _: 200_000_000)
    assert main(["local", "check", "tiny", "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].endswith("no")
    assert "tiny does not fit on cpu with these settings. This fits: LocalSettings(" in printed.err


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (["/no/such/folder"], "it is no folder here", 1),
        (["tiny", "--device", "cuda:77"], "can't use a device 'cuda:77'", 1),
        (["tiny", "--device", "cpu", "--device-map", "auto"], "leave one out", 2),
        (["tiny", "--max-batch-size", "0"], "max_batch_size has to be 1 or more", 2),
        (["ollama:no-such-model"], "no such tag", 1),
    ],
)
def test_mistakes_are_explained(capsys, arguments, text, code):
    assert main(["local", "check", *arguments]) == code
    assert text in capsys.readouterr().err

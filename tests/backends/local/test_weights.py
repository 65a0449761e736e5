"""A model is never in memory twice: loading takes its final size and half a layer."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import MllamaConfig, MllamaForConditionalGeneration

from llama_vision.backends.local.model_loader import TINY_MODEL_PATH

LAYER = 2 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336)
"""Bytes of one decoder layer of the 11B in bfloat16."""

MEASURE = """
import sys, threading, time, torch
from llama_vision.backends.local import LocalSettings
from llama_vision.backends.local.model_loader import load_model

def in_use():  # without what is mapped from files
    return 1024 * int(next(one for one in open("/proc/self/status") if one.startswith("RssAnon")).split()[1])

load_model("tiny", LocalSettings(device="cpu"))
before, peak, done = in_use(), 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, in_use())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
loaded = load_model(sys.argv[1], LocalSettings(device="cpu", dtype="bfloat16", quantization=sys.argv[2] or None))
done = True
watcher.join()
print(peak - before, loaded.num_bytes)
"""


@pytest.fixture(scope="module")
def of_11b_shape(tmp_path_factory):
    """The 11B's width with three decoder layers, two vision layers and a small vocabulary."""
    text = {"vocab_size": 8192, "num_hidden_layers": 3, "cross_attention_layers": [1], "pad_token_id": 0}
    vision = {"num_hidden_layers": 1, "num_global_layers": 1, "intermediate_layers_indices": [0]}
    vision |= {
        "vision_output_dim": 2560,
        "image_size": 560,
        "max_num_tiles": 1,
        "supported_aspect_ratios": [[1, 1]],
    }
    config = MllamaConfig(text_config=text, vision_config=vision, image_token_index=8192, dtype="bfloat16")
    folder = tmp_path_factory.mktemp("models") / "of_11b_shape"
    folder.mkdir()
    for path in TINY_MODEL_PATH.glob("*.json"):
        shutil.copy(path, folder)
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = MllamaForConditionalGeneration(config)
    weights = {
        name: torch.full(one.shape, 0.01, dtype=torch.bfloat16) for name, one in model.named_parameters()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"] == 4096
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what is in use")
@pytest.mark.parametrize("quantization", ["", "int8", "int4"])
def test_loading_takes_the_final_size_and_half_a_layer(of_11b_shape, quantization):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(of_11b_shape), quantization],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ
        | {"MALLOC_MMAP_THRESHOLD_": "1000000"},  # else glibc keeps some of what was freed, by chance
    )
    peak, final = map(int, done.stdout.split())
    assert final > {"": 3, "int8": 1, "int4": 0.75}[quantization] * LAYER
    assert peak <= final + LAYER / 2, f"{peak:,} for {final:,}"
